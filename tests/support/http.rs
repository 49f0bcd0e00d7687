//! One request, one answer: enough HTTP to ask a pod, the API server or the webhook, and nothing in between that
//! retries, pools or follows.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

/// Longer than any answer takes here; a server that hangs is an error.
const LIMIT: Duration = Duration::from_secs(10);

/// Status and body of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// A request to a plain HTTP server; `body` makes it a POST of JSON.
pub(crate) fn plain(server: SocketAddr, path: &str, body: Option<&str>) -> Result<Answer> {
    exchange(connect(server)?, path, None, body.map(|body| ("POST", "application/json", body)))
}

/// Asks servers whose certificates one CA has signed.
#[derive(Clone)]
pub(crate) struct Https {
    config: Arc<ClientConfig>,
    token: Option<String>,
}

impl Https {
    /// With the CA's certificate and, for the API server, a token.
    pub(crate) fn new(ca: &Path, token: Option<String>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).with_context(|| format!("reading {}", ca.display()))? {
            roots.add(certificate?)?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { config: Arc::new(config), token })
    }

    pub(crate) fn get(&self, server: SocketAddr, path: &str) -> Result<Answer> {
        self.send(server, path, None)
    }

    /// `body` makes it a POST of JSON.
    pub(crate) fn send(&self, server: SocketAddr, path: &str, body: Option<&str>) -> Result<Answer> {
        self.ask(server, path, body.map(|body| ("POST", "application/json", body)))
    }

    /// A patch of this content type.
    pub(crate) fn patch(&self, server: SocketAddr, path: &str, kind: &str, patch: &str) -> Result<Answer> {
        self.ask(server, path, Some(("PATCH", kind, patch)))
    }

    pub(crate) fn delete(&self, server: SocketAddr, path: &str) -> Result<Answer> {
        self.ask(server, path, Some(("DELETE", "application/json", "")))
    }

    fn ask(&self, server: SocketAddr, path: &str, sent: Option<Sent<'_>>) -> Result<Answer> {
        let name = ServerName::IpAddress(server.ip().into());
        let session = ClientConnection::new(Arc::clone(&self.config), name)?;
        exchange(StreamOwned::new(session, connect(server)?), path, self.token.as_deref(), sent)
    }
}

fn connect(server: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Method, content type, body.
type Sent<'a> = (&'a str, &'a str, &'a str);

fn exchange(mut stream: impl Read + Write, path: &str, token: Option<&str>, sent: Option<Sent<'_>>) -> Result<Answer> {
    let method = sent.map_or("GET", |(method, ..)| method);
    let mut request = format!("{method} {path} HTTP/1.0\r\nHost: bed\r\nAccept: application/json\r\n");
    if let Some(token) = token {
        request.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    if let Some((_, kind, body)) = sent {
        request.push_str(&format!("Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    } else {
        request.push_str("\r\n");
    }
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // Servers that close without TLS' goodbye have still said what they had to say.
        Err(error) if error.kind() != ErrorKind::UnexpectedEof || answer.is_empty() => Err(error.into()),
        _ => parse(&String::from_utf8_lossy(&answer)),
    }
}

/// HTTP/1.0 was asked for, so the body is what follows the head, up to the end.
fn parse(answer: &str) -> Result<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without an end of its head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Answer { status: status.with_context(|| format!("no status in {head:?}"))?, body: body.to_owned() })
}
