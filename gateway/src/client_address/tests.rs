use std::net::SocketAddr;

use ppp::v2::{Builder, Type, Version};
use tokio::io::AsyncWriteExt;

use super::*;

const PROXY: &str = "127.0.0.1";
const BEHIND: &[u8] = b"hello";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn proxies() -> Proxies {
    Proxies::new(&BTreeSet::from([ip(PROXY), ip("::ffff:192.0.2.7")]))
}

fn builder(command: Command, protocol: Protocol, client: &str, server: &str) -> Builder {
    let [client, server] = [client, server].map(|text| text.parse::<SocketAddr>().unwrap());
    Builder::with_addresses(Version::Two | command, protocol, (client, server))
}

fn stream_from(client: &str, server: &str) -> Vec<u8> {
    let builder = builder(Command::Proxy, Protocol::Stream, client, server);
    builder.build().unwrap()
}

fn v4() -> Vec<u8> {
    stream_from("198.51.100.4:40000", "192.0.2.1:443")
}

/// What comes of a connection from `peer` on which this is sent, and what is
/// left to be read of it.
async fn connection(peer: &str, sent: &[u8]) -> (io::Result<IpAddr>, Vec<u8>) {
    let mut stream = sent;
    let client = proxies().client(ip(peer), &mut stream).await;
    (client.map(|client| client.0), stream.to_vec())
}

async fn refused(sent: &[u8]) -> io::ErrorKind {
    connection(PROXY, sent).await.0.unwrap_err().kind()
}

#[tokio::test]
async fn a_proxy_names_whom_it_speaks_for() {
    for (header, named) in [
        (v4(), "198.51.100.4"),
        (
            stream_from("[2001:db8::4]:40000", "[2001:db8::1]:443"),
            "2001:db8::4",
        ),
        (
            stream_from("[::ffff:198.51.100.4]:40000", "[::ffff:192.0.2.1]:443"),
            "198.51.100.4",
        ),
    ] {
        for peer in [PROXY, "::ffff:127.0.0.1", "192.0.2.7"] {
            let (client, rest) = connection(peer, &[&header, BEHIND].concat()).await;
            assert_eq!(client.unwrap(), ip(named));
            assert_eq!(rest, BEHIND);
        }
    }
}

#[tokio::test]
async fn whoever_is_no_proxy_counts_for_themselves_whatever_they_send() {
    let sent = [v4(), BEHIND.to_vec()].concat();
    for (peer, counts_for) in [
        ("127.0.0.2", "127.0.0.2"),
        ("2001:db8::4", "2001:db8::4"),
        ("::ffff:192.0.2.8", "192.0.2.8"),
    ] {
        let (client, rest) = connection(peer, &sent).await;
        assert_eq!(client.unwrap(), ip(counts_for));
        assert_eq!(rest, sent, "it was looked at");
    }
}

#[tokio::test]
async fn a_proxy_that_names_nobody_counts_for_itself() {
    let (client, server) = ("198.51.100.4:40000", "192.0.2.1:443");
    let unknown = Builder::new(
        Version::Two | Command::Proxy,
        Protocol::Unspecified | ppp::v2::AddressFamily::Unspecified,
    );
    for builder in [
        builder(Command::Local, Protocol::Stream, client, server),
        builder(Command::Proxy, Protocol::Datagram, client, server),
        // Of different families, which the header cannot say.
        builder(
            Command::Proxy,
            Protocol::Stream,
            client,
            "[2001:db8::1]:443",
        ),
        unknown,
    ] {
        let header = builder.build().unwrap();
        let (client, rest) = connection(PROXY, &[&header, BEHIND].concat()).await;
        assert_eq!(client.unwrap(), ip(PROXY), "{header:?}");
        assert_eq!(rest, BEHIND);
    }
}

#[tokio::test]
async fn a_header_may_come_in_pieces() {
    let (mut near, mut far) = tokio::io::duplex(1);
    let sending = tokio::spawn(async move {
        near.write_all(&v4()).await.unwrap();
        near.write_all(BEHIND).await.unwrap();
    });
    let client = proxies().client(ip(PROXY), &mut far).await;
    assert_eq!(client.unwrap().0, ip("198.51.100.4"));
    let mut rest = Vec::new();
    far.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, BEHIND);
    sending.await.unwrap();
}

#[tokio::test]
async fn what_is_no_header_is_refused_at_its_first_wrong_byte() {
    let tls = [0x16, 0x03, 0x01];
    for garbage in [&tls[..], b"PROXY TCP4 198.51.100.4 192.0.2.1 4 5\r\n"] {
        assert_eq!(refused(garbage).await, io::ErrorKind::InvalidData);
    }
    let changed = |at: usize, to: u8| {
        let mut header = v4();
        header[at] = to;
        header
    };
    for (at, to) in [
        // The signature, the version, the command, the family, the protocol.
        (11, 0),
        (12, 0x11),
        (12, 0x22),
        (13, 0x41),
        (13, 0x13),
        // Shorter than the addresses of the family.
        (15, 11),
    ] {
        assert_eq!(refused(&changed(at, to)).await, io::ErrorKind::InvalidData);
    }
    for length in 0..v4().len() {
        let cut = refused(&v4()[..length]).await;
        assert_eq!(cut, io::ErrorKind::UnexpectedEof);
    }
}

#[tokio::test]
async fn more_than_addresses_is_passed_over_up_to_a_bound() {
    let with = |more: usize| {
        // Its kind, its length and then so many bytes.
        let value = vec![7; more - 3];
        let builder = builder(
            Command::Proxy,
            Protocol::Stream,
            "198.51.100.4:4",
            "192.0.2.1:5",
        );
        let builder = builder.write_tlv(Type::NoOp, &value).unwrap();
        builder.build().unwrap()
    };
    let longest = with(REST_MAX - 12);
    assert_eq!(longest.len(), 536);
    let (client, rest) = connection(PROXY, &[&longest, BEHIND].concat()).await;
    assert_eq!(client.unwrap(), ip("198.51.100.4"));
    assert_eq!(rest, BEHIND);

    let too_long = with(REST_MAX - 11);
    let (client, rest) = connection(PROXY, &too_long).await;
    assert_eq!(client.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(rest, too_long[FIXED..], "more was read than says so");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_sends_nothing_is_not_waited_for_long() {
    let (_near, mut far) = tokio::io::duplex(64);
    let client = proxies().client(ip(PROXY), &mut far).await;
    assert_eq!(client.unwrap_err().kind(), io::ErrorKind::TimedOut);
}
