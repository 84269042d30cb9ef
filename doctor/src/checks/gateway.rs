//! What a device meets: whether the gateway answers over TLS 1.3 with the
//! certificate of the directory, and says that it is ready.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::tls::TlsInfo;
use sotto_service::cause::innermost;
use sotto_service::{Layout, config, tls};

use super::certificates;
use crate::finding::{Check, Finding};
use crate::server::Server;

/// How long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A name that every certificate of a server is for.
const HOST: &str = "localhost";

/// What the gateway showed and said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    status: StatusCode,
    /// Its certificate, DER.
    certificate: Option<Vec<u8>>,
}

/// Asks it.
pub(crate) async fn check(server: Arc<Server>) -> Vec<Finding> {
    // Where none runs, the programs are spoken of already.
    let (Some(settings), Some(_)) = (&server.settings, server.programs.gateway) else {
        return Vec::new();
    };
    let listen = settings.gateway.listen;
    // What comes to an address of this machine from there comes from the same.
    let own = config::from_here(listen).ip();
    if settings.gateway.proxy_protocol_from.contains(&own) {
        return vec![Finding::not_checked(
            Check::Tls,
            format!(
                "the gateway on {listen} takes who comes from {own} for a proxy (`[gateway] proxy_protocol_from`)"
            ),
            "ask it through the proxy, by the name that people use: `/readyz` says 200",
        )];
    }
    let answer = ask(&server.layout, listen).await;
    let expected = certificates::first(&server.layout.server_certificate()).ok();
    vec![judge(listen, answer, expected.as_deref())]
}

/// No version but 1.3 is offered, so that an answer says that it is spoken.
async fn ask(layout: &Layout, listen: SocketAddr) -> Result<Answer, String> {
    let tls = tls::client_config(layout).map_err(|error| error.to_string())?;
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .tls_info(true)
        .https_only(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .resolve(HOST, config::from_here(listen))
        .timeout(TIMEOUT)
        .build()
        .map_err(|error| error.to_string())?;
    let url = format!("https://{HOST}:{}/readyz", listen.port());
    let answer = http.get(url).send().await;
    let answer = answer.map_err(|error| innermost(&error))?;
    let info: Option<&TlsInfo> = answer.extensions().get();
    let certificate = info.and_then(TlsInfo::peer_certificate);
    Ok(Answer {
        status: answer.status(),
        certificate: certificate.map(<[u8]>::to_vec),
    })
}

fn judge(listen: SocketAddr, answer: Result<Answer, String>, expected: Option<&[u8]>) -> Finding {
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => {
            return Finding::problem(
                Check::Tls,
                format!(
                    "the gateway on {listen} does not answer over TLS 1.3 with a certificate of this server: {why}"
                ),
                "start sotto-gateway again; if that does not help, its log and the other findings about certificates say more",
            );
        }
    };
    if answer.certificate.as_deref() != expected {
        return Finding::warning(
            Check::Tls,
            format!(
                "the gateway on {listen} shows another certificate than the one in tls/server.pem"
            ),
            "start sotto-gateway again, so that it reads the file again",
        );
    }
    let what = format!("the gateway on {listen} answers over TLS 1.3 with tls/server.pem");
    if answer.status != StatusCode::OK {
        return Finding::problem(
            Check::Tls,
            format!("{what}, but it is not ready ({})", answer.status),
            "see that sotto-relay and nats-server run: a gateway is ready when NATS is connected and every organisation's directory is read",
        );
    }
    Finding::ok(Check::Tls, format!("{what}, and is ready"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Level;

    fn judged(answer: Result<Answer, String>) -> Level {
        let listen = "127.0.0.1:8443".parse().unwrap();
        judge(listen, answer, Some(b"own")).level
    }

    fn answer(status: StatusCode, certificate: &[u8]) -> Result<Answer, String> {
        Ok(Answer {
            status,
            certificate: Some(certificate.to_vec()),
        })
    }

    #[test]
    fn an_answer_counts_only_with_the_certificate_of_the_file() {
        assert_eq!(judged(answer(StatusCode::OK, b"own")), Level::Ok);
        assert_eq!(judged(answer(StatusCode::OK, b"old")), Level::Warning);
        let unready = answer(StatusCode::SERVICE_UNAVAILABLE, b"own");
        assert_eq!(judged(unready), Level::Problem);
        assert_eq!(judged(Err("refused".to_owned())), Level::Problem);
    }
}
