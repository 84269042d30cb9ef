//! A disk without space: a small one in memory, which takes the right to
//! mount.

use std::fs;
use std::process::Command;

use async_nats::Client;
use async_nats::jetstream;
use sotto_proto::{RoomAddress, Subject, limits};
use tempfile::TempDir;

use crate::life::{payloads, store_surely};
use crate::org::{Org, submission};
use crate::server::Server;

/// A file system of its own.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(megabytes: usize) -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        let size = format!("size={megabytes}m");
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]);
        let status = mount.arg(disk.0.path()).status().unwrap();
        assert!(
            status.success(),
            "mounting a small tmpfs takes root, or `unshare --mount --user --map-root-user`"
        );
        disk
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Stores the longest messages until one is refused: how many were
/// acknowledged, and why no more.
async fn fill(client: &Client, room: &RoomAddress) -> (usize, String) {
    let js = jetstream::new(client.clone());
    for stored in 0..1_000 {
        let payload = vec![b'x'; limits::PAYLOAD].into();
        let ack = js
            .publish(submission(client, &room.messages()), payload)
            .await;
        if let Err(error) = ack.unwrap().await {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            return (stored, source.unwrap_or(error.to_string()));
        }
    }
    panic!("the disk is not full yet");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_fill_the_disk_are_refused_with_an_error_before_it_is_full() {
    let disk = SmallDisk::mount(40);
    let server = Server::within(disk.0.path());
    let _relay = server.start().await;
    let (org, alice, room) = Org::with_alice(&server).await;
    let client = org.connect(&alice).await;
    let (stored, why) = fill(&client, &room).await;
    assert!(stored > 50, "{stored}");
    assert!(why.contains("disk is full"), "{why}");
    // And what is there can be read: as much as one answer holds.
    let answer = limits::FETCH_BYTES as usize / limits::PAYLOAD;
    assert_eq!(payloads(&client, &alice, &room).await.len(), answer);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_full_disk_has_space_again_everything_goes_on() {
    let disk = SmallDisk::mount(60);
    let server = Server::within(disk.0.path());
    let _relay = server.start().await;
    let (org, alice, room) = Org::with_alice(&server).await;
    let client = org.connect(&alice).await;
    for number in 0..20 {
        store_surely(&client, &room.messages(), &number.to_string()).await;
    }

    // Someone else fills the disk; the server cannot know.
    let others = disk.0.path().join("others");
    let full = fs::write(&others, vec![0; 80 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    fill(&client, &room).await;
    fs::remove_file(others).unwrap();

    store_surely(&client, &Subject::Inbox(alice.id), "again").await;
    store_surely(&client, &room.messages(), "20").await;
    let expected: Vec<String> = (0..=20).map(|number| number.to_string()).collect();
    let mut found = payloads(&client, &alice, &room).await;
    found.retain(|payload| payload.len() < 100);
    assert_eq!(found, expected);
}
