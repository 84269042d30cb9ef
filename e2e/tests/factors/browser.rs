//! Chromium, driven over WebDriver, with virtual security keys (W3C WebAuthn
//! Level 2, section 11) and a certificate store of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use serde_json::{Value, json};
use sotto_faults::ports;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
/// WebDriver's name of an element's id.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser without a window. Ended when dropped.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _home: TempDir,
}

impl Browser {
    /// Starts one that trusts the authority in `authority`, PEM.
    pub fn start(authority: &Path) -> Self {
        let root = root();
        let home = tempfile::tempdir().unwrap();
        let libraries = ["x86_64-linux-gnu", "aarch64-linux-gnu"].map(|machine| {
            let folder = root.join("usr/lib").join(machine);
            [folder.join("pulseaudio"), folder]
        });
        let libraries = env::join_paths(libraries.concat()).unwrap();
        for store in [".pki/nssdb", ".local/share/pki/nssdb"] {
            let folder = home.path().join(store);
            fs::create_dir_all(&folder).unwrap();
            let store = format!("sql:{}", folder.display());
            let certutil = |arguments: &[&str]| {
                let done = Command::new(root.join("usr/bin/certutil"))
                    .args(["-d", &store])
                    .args(arguments)
                    .env("LD_LIBRARY_PATH", &libraries)
                    .status();
                assert!(done.unwrap().success(), "certutil {arguments:?}");
            };
            certutil(&["-N", "--empty-password"]);
            let authority = authority.to_str().unwrap();
            certutil(&["-A", "-n", "test", "-t", "C,,", "-i", authority]);
        }
        let port = ports::free().unwrap().port();
        let driver = Command::new(root.join("usr/bin/chromedriver"))
            .arg(format!("--port={port}"))
            .env("HOME", home.path())
            .env("LD_LIBRARY_PATH", &libraries)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Chromium's driver is unpacked by `cargo xtask setup`");
        let mut browser = Self {
            driver,
            port,
            session: String::new(),
            _home: home,
        };
        eventually("the driver", || {
            browser.request("GET", "/status", None).ok()
        });
        let profile = browser._home.path().join("profile");
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": {
                "binary": root.join("usr/lib/chromium/chromium"),
                "args": [
                    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                    "--window-size=800,600", format!("--user-data-dir={}", profile.display()),
                ],
            },
            "webauthn:virtualAuthenticators": true,
        } } });
        let made = browser.request("POST", "/session", Some(&capabilities));
        browser.session = made.unwrap()["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    /// Goes to a page.
    pub fn open(&self, url: &str) {
        // The same document with another fragment would not be loaded again.
        self.command("POST", "/url", &json!({ "url": "about:blank" }));
        self.command("POST", "/url", &json!({ "url": url }));
    }

    /// Clicks the element with this id.
    pub fn click(&self, id: &str) {
        let element = eventually(id, || self.element(id));
        self.command("POST", &format!("/element/{element}/click"), &json!({}));
    }

    /// Waits until the element with this id shows a text that holds `part`.
    pub fn reads(&self, id: &str, part: &str) -> String {
        let mut last = String::new();
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            last = self.text(id).unwrap_or(last);
            if last.contains(part) {
                return last;
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("#{id} reads `{last}`, and never `{part}`");
    }

    fn text(&self, id: &str) -> Option<String> {
        let path = format!(
            "/session/{}/element/{}/text",
            self.session,
            self.element(id)?
        );
        let text = self.request("GET", &path, None).ok()?;
        Some(text.as_str()?.to_owned())
    }

    fn element(&self, id: &str) -> Option<String> {
        let path = format!("/session/{}/element", self.session);
        let asked = json!({ "using": "css selector", "value": format!("#{id}") });
        let found = self.request("POST", &path, Some(&asked)).ok()?;
        Some(found[ELEMENT].as_str()?.to_owned())
    }

    /// What the page looks like, as PNG.
    pub fn screenshot(&self, path: &Path) {
        let shot = format!("/session/{}/screenshot", self.session);
        let shot = self.request("GET", &shot, None).unwrap();
        let png = data_encoding::BASE64.decode(shot.as_str().unwrap().as_bytes());
        fs::write(path, png.unwrap()).unwrap();
    }

    /// Plugs a security key in whose user always touches it and is always
    /// recognised, unless `verifies` says otherwise.
    pub fn plug_in(&self, verifies: bool) -> String {
        let key = json!({
            "protocol": "ctap2", "transport": "usb", "hasResidentKey": false,
            "hasUserVerification": true, "isUserConsenting": true, "isUserVerified": verifies,
        });
        let id = self.command("POST", "/webauthn/authenticator", &key);
        id.as_str().unwrap().to_owned()
    }

    /// Unplugs it; what was on it.
    pub fn unplug(&self, key: &str) -> Vec<Value> {
        let path = format!("/session/{}/webauthn/authenticator/{key}", self.session);
        let credentials = self.request("GET", &format!("{path}/credentials"), None);
        self.request("DELETE", &path, None).unwrap();
        credentials.unwrap().as_array().unwrap().clone()
    }

    /// Puts a credential onto a key.
    pub fn load(&self, key: &str, credential: &Value) {
        let path = format!("/webauthn/authenticator/{key}/credential");
        self.command("POST", &path, credential);
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let path = format!("/session/{}{path}", self.session);
        self.request(method, &path, Some(body)).unwrap()
    }

    fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let failed = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            body.len(),
        )
        .map_err(failed)?;
        let mut answer = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while answer.read_line(&mut line).map_err(failed)? > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        answer.read_exact(&mut body).map_err(failed)?;
        let mut answer: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        match answer["value"]["error"].as_str() {
            Some(_) => Err(answer["value"].to_string()),
            None => Ok(answer["value"].take()),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.request("DELETE", &format!("/session/{}", self.session), None);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "{what} never came");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Below which folder Chromium is.
fn root() -> PathBuf {
    if let Some(root) = env::var_os("SOTTO_CHROMIUM_ROOT") {
        return root.into();
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let unpacked = workspace.join("target/tools/chromium");
    match unpacked.exists() {
        true => unpacked,
        false => "/".into(),
    }
}
