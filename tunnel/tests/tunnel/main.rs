//! Both ends of a tunnel as programs, with real clients before and real servers
//! behind them.

mod breaking;
mod limits;
mod passing;
mod program;
mod refusing;
mod secrecy;
mod stage;
