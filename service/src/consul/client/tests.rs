use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

fn client(prefix: &str) -> Client {
    crate::tls::install_provider();
    let mut config = ConsulConfig::at("http://127.0.0.1:8500".parse().unwrap());
    config.prefix = prefix.parse().unwrap();
    Client::new(&config).unwrap()
}

#[test]
fn what_is_named_stays_one_piece_of_the_path() {
    let client = client("a/b");
    let url = |path: &[&str]| client.url(&Call::get(path, &[])).to_string();
    let odd = url(&["agent", "check", "update", "../leave?x=1#y z"]);
    assert_eq!(
        odd,
        "http://127.0.0.1:8500/v1/agent/check/update/..%2Fleave%3Fx=1%23y%20z"
    );
    let key = client.key("log");
    let path: Vec<&str> = key.split('/').collect();
    assert_eq!(url(&path), "http://127.0.0.1:8500/v1/kv/a/b/log");
    let call = Call::get(&path, &[("raw", ""), ("index", "7")]);
    assert!(client.url(&call).as_str().ends_with("?raw=&index=7"));
}

#[test]
fn a_token_is_read_once_and_never_shown() {
    crate::tls::install_provider();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let mut config = ConsulConfig::at("http://127.0.0.1:8500".parse().unwrap());
    config.token_file = Some(file.clone());
    assert!(matches!(Client::new(&config), Err(ConsulError::File(_))));
    for wrong in ["", "\n", "two\nlines"] {
        std::fs::write(&file, wrong).unwrap();
        assert!(
            matches!(Client::new(&config), Err(ConsulError::Token(_))),
            "{wrong:?}"
        );
    }
    std::fs::write(&file, "hunter2\n").unwrap();
    let client = Client::new(&config).unwrap();
    assert_eq!(client.token.as_ref().unwrap(), "hunter2");
    assert!(!format!("{client:?}").contains("hunter2"));
}

/// What answers each request with these bytes, and then, if `endless`, goes on
/// for ever; ends with the test.
async fn answering(answer: &str, endless: bool) -> (Client, JoinHandle<()>) {
    crate::tls::install_provider();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answer = answer.as_bytes().to_vec();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4_096];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(&answer).await;
            while endless && stream.write_all(&[b'a'; 8_192]).await.is_ok() {}
        }
    });
    let config = ConsulConfig::at(address.parse().unwrap());
    (Client::new(&config).unwrap(), serving)
}

#[tokio::test]
async fn a_key_is_read_only_from_a_consul() {
    for (answer, value) in [
        (
            "200 OK\r\nX-Consul-Index: 7\r\nContent-Length: 5\r\n\r\ndebug",
            Some(&b"debug"[..]),
        ),
        (
            "404 Not Found\r\nX-Consul-Index: 7\r\nContent-Length: 0\r\n\r\n",
            None,
        ),
        (
            "200 OK\r\nX-Consul-Index: 7\r\nContent-Length: 9\r\n\r\ndebug,,,,",
            Some(&b""[..]),
        ),
    ] {
        let (client, _serving) = answering(&format!("HTTP/1.1 {answer}"), false).await;
        let read = client.read("log", 0, 8).await.unwrap();
        assert_eq!((read.value.as_deref(), read.index), (value, 7));
    }
    for answer in [
        "404 Not Found\r\nContent-Length: 0\r\n\r\n",
        "200 OK\r\nContent-Length: 5\r\n\r\ndebug",
        "200 OK\r\nX-Consul-Index: -1\r\nContent-Length: 5\r\n\r\ndebug",
    ] {
        let (client, _serving) = answering(&format!("HTTP/1.1 {answer}"), false).await;
        let read = client.read("log", 0, 8).await;
        assert!(matches!(read, Err(ConsulError::NotConsul(_))), "{read:?}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let (client, _serving) = answering("HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\n\r\n", true).await;
    let found = client.admissions("sotto-relay").await;
    assert!(matches!(found, Err(ConsulError::Endless)), "{found:?}");
    assert_eq!(
        client.read("log", 0, 8).await.unwrap().value,
        Some(Vec::new())
    );
    // Also one whose head does not end.
    let (client, _serving) = answering("HTTP/1.1 200 OK\r\nX: ", true).await;
    let found = client.admissions("sotto-relay").await;
    assert!(
        matches!(found, Err(ConsulError::Unreachable(_))),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_refusal_and_a_redirection_are_no_answer() {
    for head in [
        "500 Internal Server Error",
        "403 Forbidden",
        "302 Found\r\nLocation: http://127.0.0.1:1/",
    ] {
        let answer = format!("HTTP/1.1 {head}\r\nContent-Length: 4\r\n\r\ntrue");
        let (client, _serving) = answering(&answer, false).await;
        let told = client.update("check", &[]).await;
        assert!(matches!(told, Err(ConsulError::Refused { .. })), "{told:?}");
    }
}

#[tokio::test]
async fn who_says_nothing_is_waited_for_a_few_seconds_only() {
    crate::tls::install_provider();
    // The system takes connections in, and nobody reads.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let client = Client::new(&ConsulConfig::at(address.parse().unwrap())).unwrap();
    let told = tokio::time::timeout(GOODBYE * 2, client.deregister("id"))
        .await
        .unwrap();
    assert!(matches!(told, Err(ConsulError::Unreachable(_))), "{told:?}");
    drop(listener);
}
