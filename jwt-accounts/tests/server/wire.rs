//! The client side of NATS's protocol by hand: it says what no library would,
//! and knows of every command whether the server took it.

use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::PATIENCE;

/// A message that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub subject: String,
    pub reply: Option<String>,
    /// The header block, empty when there is none.
    pub headers: String,
    pub payload: String,
}

pub struct Wire {
    stream: BufReader<TcpStream>,
    subscriptions: u64,
    requests: u64,
    /// What was heard so far.
    pub heard: Vec<Heard>,
}

impl Wire {
    /// Connects; an error is what the server says.
    pub async fn connect(url: &str, jwt: &str, key: &KeyPair) -> Result<Self, String> {
        let address = url.strip_prefix("nats://").unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let mut wire = Self {
            stream: BufReader::with_capacity(1024 * 1024, stream),
            subscriptions: 0,
            requests: 0,
            heard: Vec::new(),
        };
        let info = wire.line().await.ok_or("closed at once")?;
        let info = info.strip_prefix("INFO ").expect("INFO comes first");
        let info: serde_json::Value = serde_json::from_str(info).unwrap();
        let nonce = info["nonce"].as_str().expect("a nonce to sign");
        let signature = key.sign(nonce.as_bytes()).unwrap();
        let connect = serde_json::json!({
            "jwt": jwt, "nkey": key.public_key(), "sig": BASE64URL_NOPAD.encode(&signature),
            "verbose": false, "pedantic": false, "lang": "test", "version": "1", "protocol": 1,
            "headers": true, "no_responders": true, "echo": true,
        });
        match wire.say(format!("CONNECT {connect}\r\n").as_bytes()).await {
            Ok(()) => Ok(wire),
            Err(error) => Err(error),
        }
    }

    /// Says something and waits until the server has dealt with it: an error
    /// is its refusal, or that it closed the connection.
    pub async fn say(&mut self, command: &[u8]) -> Result<(), String> {
        let mut bytes = command.to_vec();
        bytes.extend(b"PING\r\n");
        // A server that hangs up has the last word, which is still to be read.
        let _ = self.stream.get_mut().write_all(&bytes).await;
        let mut refusal = Ok(());
        loop {
            match self.next().await {
                Next::Pong => return refusal,
                Next::Refusal(text) if refusal.is_ok() => refusal = Err(text),
                Next::Refusal(_) => {}
                Next::Heard(heard) => self.heard.push(heard),
                Next::Closed => return refusal.and(Err("closed".to_owned())),
            }
        }
    }

    pub async fn publish(&mut self, subject: &str, payload: &str) -> Result<(), String> {
        let command = format!("PUB {subject} {}\r\n{payload}\r\n", payload.len());
        self.say(command.as_bytes()).await
    }

    pub async fn publish_with_reply(
        &mut self,
        subject: &str,
        reply: &str,
        payload: &str,
    ) -> Result<(), String> {
        let command = format!("PUB {subject} {reply} {}\r\n{payload}\r\n", payload.len());
        self.say(command.as_bytes()).await
    }

    pub async fn subscribe(&mut self, subject: &str) -> Result<(), String> {
        self.subscriptions += 1;
        let command = format!("SUB {subject} {}\r\n", self.subscriptions);
        self.say(command.as_bytes()).await
    }

    pub async fn queue_subscribe(&mut self, subject: &str, queue: &str) -> Result<(), String> {
        self.subscriptions += 1;
        let command = format!("SUB {subject} {queue} {}\r\n", self.subscriptions);
        self.say(command.as_bytes()).await
    }

    /// Publishes with headers and waits for the answer, on a subject of its
    /// own below a reply prefix that is subscribed to.
    pub async fn request(
        &mut self,
        subject: &str,
        prefix: &str,
        headers: &[(&str, &str)],
    ) -> Result<String, String> {
        self.requests += 1;
        let reply = format!("{prefix}.{}", self.requests);
        self.publish_with_headers(subject, &reply, headers).await?;
        let answer = self.hear(|heard| heard.subject == reply).await;
        answer
            .map(|heard| heard.payload)
            .ok_or_else(|| "no answer".to_owned())
    }

    pub async fn publish_with_headers(
        &mut self,
        subject: &str,
        reply: &str,
        headers: &[(&str, &str)],
    ) -> Result<(), String> {
        let mut block = "NATS/1.0\r\n".to_owned();
        for (name, value) in headers {
            block.push_str(&format!("{name}: {value}\r\n"));
        }
        block.push_str("\r\n");
        let length = block.len();
        let command = format!(
            "HPUB {subject} {reply} {length} {}\r\n{block}x\r\n",
            length + 1
        );
        self.say(command.as_bytes()).await
    }

    /// Waits for a message that fits.
    pub async fn hear(&mut self, fits: impl Fn(&Heard) -> bool) -> Option<Heard> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(heard) = self.heard.iter().find(|heard| fits(heard)) {
                return Some(heard.clone());
            }
            match tokio::time::timeout_at(deadline, self.next()).await {
                Ok(Next::Heard(heard)) => self.heard.push(heard),
                Ok(Next::Pong | Next::Refusal(_)) => {}
                Ok(Next::Closed) | Err(_) => return None,
            }
        }
    }

    /// Waits until the server closes the connection; what it said last.
    pub async fn closed(&mut self) -> Option<String> {
        let mut last = None;
        let reading = async {
            loop {
                match self.next().await {
                    Next::Closed => return,
                    Next::Refusal(text) => last = Some(text),
                    Next::Pong | Next::Heard(_) => {}
                }
            }
        };
        let closed = tokio::time::timeout(PATIENCE, reading).await;
        closed.ok().map(|()| last.unwrap_or_default())
    }

    async fn next(&mut self) -> Next {
        loop {
            let Some(line) = self.line().await else {
                return Next::Closed;
            };
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["PONG"] => return Next::Pong,
                ["PING"] => {
                    let _ = self.stream.get_mut().write_all(b"PONG\r\n").await;
                }
                ["-ERR", ..] => return Next::Refusal(line),
                ["MSG", subject, _, reply @ .., length] => {
                    return self.message(subject, reply, "0", length).await;
                }
                ["HMSG", subject, _, reply @ .., headers, length] => {
                    return self.message(subject, reply, headers, length).await;
                }
                _ => {}
            }
        }
    }

    async fn message(&mut self, subject: &str, reply: &[&str], headers: &str, all: &str) -> Next {
        let (headers, all): (usize, usize) = (headers.parse().unwrap(), all.parse().unwrap());
        let mut bytes = vec![0; all + 2];
        if self.stream.read_exact(&mut bytes).await.is_err() {
            return Next::Closed;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Next::Heard(Heard {
            subject: subject.to_owned(),
            reply: reply.first().map(|&reply| reply.to_owned()),
            headers: text(&bytes[..headers]),
            payload: text(&bytes[headers..all]),
        })
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = tokio::time::timeout(2 * PATIENCE, self.stream.read_line(&mut line));
        match read.await.expect("the server says something in time") {
            Ok(1..) => Some(line.trim_end().to_owned()),
            Ok(0) | Err(_) => None,
        }
    }
}

enum Next {
    Pong,
    Refusal(String),
    Heard(Heard),
    Closed,
}
