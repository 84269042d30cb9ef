//! From the directory's word to the closed connection, and staying out.

use sotto_jwt_accounts::directory::Command;
use sotto_jwt_accounts::{policy, push_account};

use crate::org::Org;
use crate::server::{Wire, now_ms};

#[tokio::test]
async fn a_revoked_device_is_cut_off_on_every_node() {
    let mut org = Org::new().await;
    let cluster = &org.cluster;
    let revoked = org.person("revoked");
    let (jwt, key) = (org.jwt(revoked), revoked.nats_key());
    let mut wires = Vec::new();
    for node in &cluster.nodes {
        wires.push(Wire::connect(&node.url, &jwt, &key).await.unwrap());
    }
    let mut others = org.device(org.person("office"), 1).await;
    let system = cluster.system(0).await;

    let start = tokio::time::Instant::now();
    let revoke = Command::RevokeDevice {
        device: revoked.device,
    };
    let actor = revoked.actor();
    org.directory.run(&actor, revoke);
    let cluster = &org.cluster;
    let voided = policy::revoked_nats_keys(&org.directory.state, now_ms());
    let account = cluster
        .keys
        .revoke(&cluster.org, &voided, now_ms())
        .unwrap();
    push_account(&system, &account).await.unwrap();
    let pushed = start.elapsed();
    let closing = wires
        .iter_mut()
        .map(|wire| async move { (wire.closed().await, start.elapsed()) });
    let closed = futures::future::join_all(closing).await;
    for ((said, after), node) in closed.iter().zip(&cluster.nodes) {
        let said = said.as_ref().expect("the connection is closed");
        assert!(said.to_lowercase().contains("revoked"), "{said}");
        println!(
            "{}: pushed after {pushed:?}, closed after {after:?}",
            node.name
        );
        assert!(after.as_secs() < 1, "{}: {after:?}", node.name);
        assert!(Wire::connect(&node.url, &jwt, &key).await.is_err());
    }
    others.say(b"").await.unwrap();
}
