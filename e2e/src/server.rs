//! A private server: `sotto up` and what it started.
