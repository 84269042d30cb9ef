//! The certificates of the directory: how long they are good, and for whom.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use sotto_service::{Layout, private_files, tls};
use x509_parser::parse_x509_certificate;

use crate::finding::{Check, Finding};
use crate::server::Server;

/// Longest file that is read, in bytes.
const FILE_MAX: u64 = 64 * 1024;
/// So many days before its end a certificate is spoken of.
const SOON: i64 = 30;
const DAY: i64 = 24 * 3_600;

/// From when until when a certificate is good, in seconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Validity {
    from_s: i64,
    until_s: i64,
}

/// Looks at every certificate that there is.
pub(crate) fn check(server: &Server) -> Vec<Finding> {
    let layout = &server.layout;
    let now_s = now_s();
    let mut files = vec![layout.server_certificate(), layout.authority()];
    if server.cluster.is_some() {
        files.extend([layout.node_certificate(), layout.cluster_authority()]);
    }
    let mut findings = Vec::new();
    for file in files {
        let name = file.strip_prefix(layout.root()).unwrap_or(&file);
        findings.push(match validity(&file) {
            Ok(validity) => judge_validity(name, validity, now_s),
            Err(why) => Finding::problem(
                Check::Tls,
                format!("{} holds no certificate that reads: {why}", name.display()),
                "restore that file from a backup of this server",
            ),
        });
    }
    findings.extend(key(layout));
    if let Some(settings) = &server.settings
        && let Ok(certificate) = first(&layout.server_certificate())
    {
        let fits = is_for(&certificate, &settings.public_host);
        findings.push(judge_name(&settings.public_host, fits));
    }
    findings
}

/// The first certificate of a PEM file, which is the one that it is about.
pub(crate) fn first(file: &Path) -> Result<CertificateDer<'static>, String> {
    let text = private_files::read_text(file, FILE_MAX).map_err(|error| error.to_string())?;
    CertificateDer::from_pem_slice(text.as_bytes()).map_err(|error| error.to_string())
}

fn validity(file: &Path) -> Result<Validity, String> {
    let certificate = first(file)?;
    let parsed = parse_x509_certificate(&certificate);
    let (_, certificate) = parsed.map_err(|error| error.to_string())?;
    let validity = certificate.validity();
    Ok(Validity {
        from_s: validity.not_before.timestamp(),
        until_s: validity.not_after.timestamp(),
    })
}

fn judge_validity(name: &Path, validity: Validity, now_s: i64) -> Finding {
    let name = name.display();
    let days = |seconds: i64| seconds.div_euclid(DAY);
    let left = validity.until_s.saturating_sub(now_s);
    if left <= 0 {
        return Finding::problem(
            Check::Tls,
            format!("the certificate {name} expired {} days ago", days(-left)),
            "see first that the clock of this machine is right; if it is, put a new certificate of the same authority and its key in the place of the old ones",
        );
    }
    let early = validity.from_s.saturating_sub(now_s);
    if early > 0 {
        return Finding::problem(
            Check::Tls,
            format!(
                "the certificate {name} is good only in {} days",
                days(early) + 1
            ),
            "set the clock of this machine: it is behind",
        );
    }
    match days(left) < SOON {
        true => Finding::warning(
            Check::Tls,
            format!("the certificate {name} expires in {} days", days(left)),
            "put a new certificate of the same authority and its key in the place of the old ones before that",
        ),
        false => Finding::ok(
            Check::Tls,
            format!("the certificate {name} is good for {} days", days(left)),
        ),
    }
}

/// Whether key and certificate belong together.
fn key(layout: &Layout) -> Option<Finding> {
    let error = tls::server_config(layout).err()?;
    Some(Finding::problem(
        Check::Tls,
        format!("the server's certificate and its key cannot be used: {error}"),
        "restore tls/server.pem and tls/server.key, both, from one backup",
    ))
}

fn is_for(certificate: &CertificateDer<'_>, host: &str) -> Result<bool, String> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
    let parsed = ParsedCertificate::try_from(certificate).map_err(|error| error.to_string())?;
    Ok(verify_server_name(&parsed, &name).is_ok())
}

fn judge_name(host: &str, fits: Result<bool, String>) -> Finding {
    match fits {
        Ok(true) => Finding::ok(Check::Tls, format!("the certificate is for {host}")),
        Ok(false) => Finding::problem(
            Check::Tls,
            format!(
                "the certificate tls/server.pem is not for {host}, by which people reach this server: no device will connect"
            ),
            "set public_host in server.toml back to what it was when the server was made, or put a certificate for the new name, of the same authority, in tls/server.pem",
        ),
        Err(why) => Finding::problem(
            Check::Tls,
            format!("whether the certificate is for {host} cannot be said: {why}"),
            "restore tls/server.pem from a backup of this server",
        ),
    }
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since.map(|since| since.as_secs()).unwrap_or_default();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Level;

    const NOW: i64 = 1_700_000_000;

    fn judged(from_days: i64, until_days: i64) -> Finding {
        let validity = Validity {
            from_s: NOW + from_days * DAY,
            until_s: NOW + until_days * DAY,
        };
        judge_validity(Path::new("tls/server.pem"), validity, NOW)
    }

    #[test]
    fn the_end_of_a_certificate_is_said_before_it_comes() {
        assert_eq!(judged(-1, 3_650).level, Level::Ok);
        assert_eq!(judged(-1, 30).level, Level::Ok);
        assert_eq!(judged(-1, 29).level, Level::Warning);
        let expired = judged(-90, -2);
        assert_eq!(expired.level, Level::Problem);
        assert!(expired.what.contains("tls/server.pem expired 2 days ago"));
        assert!(expired.advice.unwrap().contains("clock"));
        let early = judged(3, 90);
        assert_eq!(early.level, Level::Problem);
        assert!(early.advice.unwrap().contains("clock"));
    }

    #[test]
    fn certificates_are_read_and_asked_for_whom_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        layout.create().unwrap();
        tls::create_authority(&layout, "test").unwrap();
        let hosts = ["chat.example", "192.0.2.1"].map(str::to_owned);
        tls::issue_server_certificate(&layout, &hosts).unwrap();
        let file = layout.server_certificate();
        let found = judge_validity(&file, validity(&file).unwrap(), now_s());
        assert_eq!(found.level, Level::Ok, "{}", found.what);
        assert_eq!(key(&layout), None);
        let certificate = first(&file).unwrap();
        for (host, level) in [
            ("chat.example", Level::Ok),
            ("192.0.2.1", Level::Ok),
            ("other.example", Level::Problem),
            ("192.0.2.2", Level::Problem),
        ] {
            let finding = judge_name(host, is_for(&certificate, host));
            assert_eq!(finding.level, level, "{host}");
        }
        let key_of_another = layout.authority_key();
        std::fs::copy(key_of_another, layout.server_key()).unwrap();
        assert_eq!(key(&layout).unwrap().level, Level::Problem);
    }
}
