//! Whether every stream is there, has a leader, and is kept as often as it
//! should be.

use sotto_proto::{DIRECTORY_STREAM, INBOX_STREAM, Shard, blob_stream, mail_stream};
use sotto_service::ServerConfig;
use sotto_service::nats::jetstream::{Jsz, Stream, Streams};

use crate::finding::{Check, Finding};
use crate::server::Server;
use crate::system::Reply;

/// What should be.
struct Expected<'a> {
    settings: &'a ServerConfig,
    copies: usize,
    is_node: bool,
}

/// Looks at what the servers said.
pub(crate) fn check(
    server: &Server,
    settings: &ServerConfig,
    replies: Vec<Reply<Jsz>>,
) -> Vec<Finding> {
    let cluster = server.cluster.as_ref();
    let mut streams = Streams::new();
    for reply in replies {
        reply.data.add_to(&mut streams, &reply.server.name);
    }
    let expected = Expected {
        settings,
        copies: cluster.map_or(1, |cluster| cluster.members.replicas()),
        is_node: cluster.is_some(),
    };
    judge(&streams, &expected)
}

fn judge(streams: &Streams, expected: &Expected<'_>) -> Vec<Finding> {
    let mut findings = missing(streams, expected.settings);
    for ((org, name), stream) in streams {
        findings.extend(judge_stream(&format!("{name} of {org}"), stream, expected));
    }
    if findings.is_empty() {
        let copies = match expected.copies {
            1 => "once".to_owned(),
            copies => format!("on {copies} nodes"),
        };
        let what = format!("all {} streams are there and kept {copies}", streams.len());
        findings.push(Finding::ok(Check::Nats, what));
    }
    findings
}

/// The streams without which an organisation is not served.
fn missing(streams: &Streams, settings: &ServerConfig) -> Vec<Finding> {
    let mut names = vec![DIRECTORY_STREAM.to_owned(), INBOX_STREAM.to_owned()];
    for shard in (0..settings.shards.get()).map(Shard) {
        names.extend([mail_stream(shard), blob_stream(shard)]);
    }
    let mut findings = Vec::new();
    for org in &settings.orgs {
        let org = org.name.as_str();
        let there = |name: &&String| !streams.contains_key(&(org.to_owned(), (*name).clone()));
        let missing: Vec<&str> = names.iter().filter(there).map(String::as_str).collect();
        if !missing.is_empty() {
            findings.push(Finding::problem(
                Check::Nats,
                format!("of the organisation {org} the streams {} are not there", missing.join(", ")),
                "start sotto-relay and sotto-gateway again, which make them; if there were messages in them, restore nats/jetstream from a backup first",
            ));
        }
    }
    findings
}

fn judge_stream(name: &str, stream: &Stream, expected: &Expected<'_>) -> Option<Finding> {
    if stream.is_asynchronous {
        return Some(Finding::problem(
            Check::Nats,
            format!("the stream {name} acknowledges what is not on a disk (persist_mode `async`)"),
            "start sotto-relay again, and find out who changed the stream",
        ));
    }
    if !expected.is_node {
        return None;
    }
    if stream.leader.is_none() {
        return Some(Finding::problem(
            Check::Nats,
            format!("nobody leads the stream {name}: nothing is stored in it or read from it"),
            "start the nodes that are stopped; an election takes a few seconds, so run this again before you do more",
        ));
    }
    if stream.copies < expected.copies {
        return Some(Finding::problem(
            Check::Nats,
            format!(
                "the stream {name} is kept on {} nodes instead of {}",
                stream.copies, expected.copies
            ),
            "see with `sotto-relay cluster status` that every node is current: the relays add the copies by themselves then, one stream after the other",
        ));
    }
    let behind: Vec<&str> = stream.behind().collect();
    if !behind.is_empty() {
        return Some(Finding::warning(
            Check::Nats,
            format!(
                "of the stream {name} not everything is on {}",
                behind.join(" and ")
            ),
            "wait until they have caught up, and stop no other node before that",
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sotto_service::Layout;
    use sotto_service::nats::jetstream::Follower;

    use super::*;
    use crate::finding::Level;

    fn settings() -> ServerConfig {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let text = "server_name = \"s\"\npublic_host = \"h\"\nshards = 1\n\
                    [gateway]\nlisten = \"127.0.0.1:1\"\n[nats]\nlisten = \"127.0.0.1:2\"\n\
                    [[orgs]]\nname = \"acme\"\nproject = \"field\"\n";
        fs::write(layout.config(), text).unwrap();
        ServerConfig::load(&layout).unwrap()
    }

    fn streams(copies: usize) -> Streams {
        let names = ["DIRECTORY", "INBOX", "MAIL-0", "BLOB-0", "KV_x"];
        let named = names.map(|name| {
            let stream = Stream {
                account: "acme".to_owned(),
                name: name.to_owned(),
                copies,
                leader: Some("n1".to_owned()),
                followers: Vec::new(),
                is_asynchronous: false,
                messages: 0,
                bytes: 0,
                last_sequence: 0,
            };
            ((stream.account.clone(), stream.name.clone()), stream)
        });
        named.into_iter().collect()
    }

    fn levels(streams: &Streams, copies: usize) -> Vec<Level> {
        let settings = settings();
        let expected = Expected {
            settings: &settings,
            copies,
            is_node: copies > 1,
        };
        let findings = judge(streams, &expected);
        findings.iter().map(|finding| finding.level).collect()
    }

    fn changed(change: impl Fn(&mut Stream)) -> Streams {
        let mut streams = streams(3);
        change(
            streams
                .get_mut(&("acme".to_owned(), "MAIL-0".to_owned()))
                .unwrap(),
        );
        streams
    }

    #[test]
    fn streams_that_are_as_they_should_be_are_fine() {
        assert_eq!(levels(&streams(1), 1), [Level::Ok]);
        assert_eq!(levels(&streams(3), 3), [Level::Ok]);
    }

    #[test]
    fn what_a_stream_lacks_is_said() {
        let mut fewer = streams(1);
        fewer.remove(&("acme".to_owned(), "INBOX".to_owned()));
        assert_eq!(levels(&fewer, 1), [Level::Problem]);
        assert_eq!(
            levels(&changed(|stream| stream.leader = None), 3),
            [Level::Problem]
        );
        assert_eq!(
            levels(&changed(|stream| stream.copies = 1), 3),
            [Level::Problem]
        );
        assert_eq!(
            levels(&changed(|stream| stream.is_asynchronous = true), 3),
            [Level::Problem]
        );
        let late = changed(|stream| {
            stream.followers.push(Follower {
                name: "n2".to_owned(),
                id: String::new(),
                current: false,
                offline: false,
                lag: 4,
            });
        });
        assert_eq!(levels(&late, 3), [Level::Warning]);
    }
}
