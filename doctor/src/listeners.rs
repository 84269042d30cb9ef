//! Who listens where on this machine, as the kernel tells it.

use std::collections::HashSet;
use std::net::SocketAddr;

use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDTarget, Process, all_processes};
use sotto_service::listeners::exclude_each_other;

/// Every socket that listens.
pub(crate) struct Listeners(Vec<(SocketAddr, u64)>);

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Nobody.
    Nobody,
    /// The process that should.
    Own,
    /// Another one: its name and number.
    Other(String),
    /// One that cannot be seen from here.
    Unseen,
}

impl Listeners {
    /// Asks the kernel; nothing when it does not say.
    pub fn look() -> Option<Self> {
        let entries = procfs::net::tcp().ok()?;
        // A machine without IPv6 has no such file.
        let more = procfs::net::tcp6().unwrap_or_default();
        let listening = |entry: TcpNetEntry| {
            (entry.state == TcpState::Listen).then_some((entry.local_address, entry.inode))
        };
        let all = entries.into_iter().chain(more).filter_map(listening);
        Some(Self(all.collect()))
    }

    /// Who has the address; `own` is the process that should.
    pub fn holder(&self, address: SocketAddr, own: Option<i32>) -> Holder {
        let taken = self.0.iter();
        let taken = taken.filter(|(other, _)| exclude_each_other(*other, address));
        let inodes: HashSet<u64> = taken.map(|(_, inode)| *inode).collect();
        if inodes.is_empty() {
            return Holder::Nobody;
        }
        let own = own.and_then(|pid| Process::new(pid).ok());
        if own.as_ref().is_some_and(|own| holds(own, &inodes)) {
            return Holder::Own;
        }
        let others = all_processes().into_iter().flatten();
        let holding = others
            .filter_map(Result::ok)
            .find(|process| holds(process, &inodes));
        match holding.map(|process| (process.pid(), process.stat())) {
            Some((pid, Ok(stat))) => Holder::Other(format!("{} (process {pid})", stat.comm)),
            Some((pid, Err(_))) => Holder::Other(format!("process {pid}")),
            None => Holder::Unseen,
        }
    }
}

fn holds(process: &Process, inodes: &HashSet<u64>) -> bool {
    // Another user's process does not say what it has open.
    let open = process.fd().into_iter().flatten().filter_map(Result::ok);
    open.into_iter().any(|open| match open.target {
        FDTarget::Socket(inode) => inodes.contains(&inode),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn whoever_listens_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let listeners = Listeners::look().unwrap();
        assert_eq!(listeners.holder(address, Some(own)), Holder::Own);
        let Holder::Other(name) = listeners.holder(address, None) else {
            panic!()
        };
        assert!(name.contains(&own.to_string()), "{name}");
        drop(listener);
        let listeners = Listeners::look().unwrap();
        assert_eq!(listeners.holder(address, Some(own)), Holder::Nobody);
    }
}
