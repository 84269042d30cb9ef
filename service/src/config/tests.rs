use std::num::NonZeroU64;

use super::*;

pub(crate) fn config() -> ServerConfig {
    ServerConfig {
        sms: None,
        consul: None,
        server_name: "sotto-1".to_owned(),
        public_host: "chat.example".to_owned(),
        shards: NonZeroU8::MIN,
        gateway: GatewayConfig {
            listen: "127.0.0.1:8443".parse().unwrap(),
            origin: None,
            releases: None,
            metrics: Some("[::1]:9466".parse().unwrap()),
            proxy_protocol_from: ["127.0.0.1".parse().unwrap()].into(),
        },
        keys: KeysConfig::default(),
        nats: NatsConfig {
            listen: "0.0.0.0:4222".parse().unwrap(),
        },
        relay: RelayConfig {
            metrics: Some("127.0.0.1:9464".parse().unwrap()),
        },
        limits: LimitsConfig {
            burst: NonZeroU64::new(7),
            ..LimitsConfig::default()
        },
        orgs: vec![OrgConfig {
            name: "acme".parse().unwrap(),
            project: "field".parse().unwrap(),
            limits: LimitsConfig {
                org_bytes: NonZeroU64::new(1 << 40),
                ..LimitsConfig::default()
            },
        }],
    }
}

pub(crate) fn saved() -> (tempfile::TempDir, Layout) {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::new(folder.path());
    config().save(&layout).unwrap();
    (folder, layout)
}

#[test]
fn a_saved_configuration_comes_back() {
    let (_folder, layout) = saved();
    assert_eq!(ServerConfig::load(&layout).unwrap(), config());
}

#[test]
fn an_empty_directory_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let error = ServerConfig::load(&Layout::new(folder.path())).unwrap_err();
    assert!(error.to_string().contains("sotto-gateway init"), "{error}");
}

#[test]
fn an_unknown_key_is_named() {
    let (_folder, layout) = saved();
    let text = std::fs::read_to_string(layout.config()).unwrap();
    let text = text.replace("[gateway]", "[gateway]\nlistne = \"x\"");
    std::fs::write(layout.config(), text).unwrap();
    let error = ServerConfig::load(&layout).unwrap_err().to_string();
    assert!(error.contains("listne"), "{error}");
    assert!(error.contains("did you mean `listen`?"), "{error}");
    assert!(error.contains("server.toml"), "{error}");
}

#[test]
fn a_program_is_watched_on_loopback_only_and_need_not_be() {
    let (_folder, layout) = saved();
    let text = std::fs::read_to_string(layout.config()).unwrap();
    for (at, elsewhere) in [
        ("127.0.0.1:9464", "10.0.0.1:9464"),
        ("[::1]:9466", "[::]:9466"),
    ] {
        assert!(text.contains(at), "{text}");
        std::fs::write(layout.config(), text.replace(at, elsewhere)).unwrap();
        let error = ServerConfig::load(&layout).unwrap_err().to_string();
        assert!(error.contains("loopback"), "{error}");
    }
    let lines = text.lines().filter(|line| !line.starts_with("metrics"));
    let older = lines.collect::<Vec<_>>().join("\n");
    std::fs::write(layout.config(), older).unwrap();
    let loaded = ServerConfig::load(&layout).unwrap();
    assert_eq!((loaded.relay.metrics, loaded.gateway.metrics), (None, None));
}

#[test]
fn what_would_break_later_is_refused_now() {
    let broken: [fn(&mut ServerConfig); 4] = [
        |config| config.server_name = "a\"b".to_owned(),
        |config| config.public_host = "two words".to_owned(),
        |config| {
            let anybody = "0.0.0.0".parse().unwrap();
            config.gateway.proxy_protocol_from.insert(anybody);
        },
        |config| config.orgs.push(config.orgs[0].clone()),
    ];
    for breaks in broken {
        let mut config = config();
        breaks(&mut config);
        assert!(config.checked().is_err());
    }
}

#[test]
fn what_listens_everywhere_is_asked_here() {
    let at = |text: &str| from_here(text.parse().unwrap()).to_string();
    assert_eq!(at("0.0.0.0:443"), "127.0.0.1:443");
    assert_eq!(at("[::]:443"), "[::1]:443");
    assert_eq!(at("192.0.2.1:443"), "192.0.2.1:443");
}

#[test]
fn the_certificate_is_for_where_its_own_processes_ask() {
    let hosts = |listen: &str| certificate_hosts("chat.example.org", listen.parse().unwrap());
    let local = ["localhost", "127.0.0.1", "::1"];
    assert_eq!(
        hosts("0.0.0.0:4222"),
        [&local[..], &["chat.example.org"]].concat()
    );
    assert_eq!(
        hosts("192.0.2.1:4222"),
        [&local[..], &["192.0.2.1", "chat.example.org"]].concat()
    );
}
