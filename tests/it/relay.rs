//! Between surefoot and the API server: passes everything on, until it is told to hold the watches back, or all of it.
//! So a cache can be made old, and an API server slow, at a moment of the trial's choice.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};

use crate::support::{ControlPlane, run};

/// What is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Held {
    Nothing,
    Watches,
    All,
}

/// A relay to one API server, for as long as the process lives.
#[derive(Clone)]
pub(crate) struct Relay {
    url: String,
    certificate: PathBuf,
    gate: Arc<Gate>,
}

struct Gate {
    held: Mutex<Held>,
    moved: Condvar,
}

impl Gate {
    /// Returns once what is asked for is no longer held.
    fn pass(&self, is_watch: bool) {
        let from = if is_watch { Held::Watches } else { Held::All };
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.moved.wait_while(held, |held| *held >= from));
    }
}

impl Relay {
    pub(crate) fn start(plane: &ControlPlane) -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.self_signed(&key)?;
        let file = run::subfolder("relay")?.join("ca.crt");
        fs::write(&file, certificate.pem())?;
        let server = serving(certificate.pem().as_bytes(), key.serialize_pem().as_bytes())?;
        let upstream = Upstream::of(plane)?;
        let gate = Arc::new(Gate { held: Mutex::new(Held::Nothing), moved: Condvar::new() });
        let listener = TcpListener::bind(("127.0.0.1", run::free_port()?))?;
        let relay = Self { url: format!("https://{}", listener.local_addr()?), certificate: file, gate };
        let gate = Arc::clone(&relay.gate);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (server, upstream, gate) = (Arc::clone(&server), upstream.clone(), Arc::clone(&gate));
                // A connection that breaks is what either side makes of it.
                thread::spawn(move || drop(carry(stream, server, &upstream, &gate)));
            }
        });
        Ok(relay)
    }

    pub(crate) fn hold(&self, what: Held) {
        *self.gate.held.lock().unwrap_or_else(PoisonError::into_inner) = what;
        self.gate.moved.notify_all();
    }

    /// Makes a kubeconfig lead here.
    pub(crate) fn redirect(&self, kubeconfig: &Path) -> Result<()> {
        let mut config: Value = serde_json::from_slice(&fs::read(kubeconfig)?)?;
        let cluster = config.pointer_mut("/clusters/0/cluster").context("a cluster")?;
        *cluster = json!({"server": self.url, "certificate-authority": self.certificate});
        fs::write(kubeconfig, config.to_string())?;
        Ok(())
    }
}

/// TLS with this certificate and key (PEM); HTTP/1.1, as nothing else is offered.
pub(crate) fn serving(certificate: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>()?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key)?)?;
    Ok(Arc::new(config))
}

#[derive(Clone)]
struct Upstream {
    address: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Upstream {
    fn of(plane: &ControlPlane) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(plane.ca())? {
            roots.add(certificate?)?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let address = plane.url().trim_start_matches("https://").parse()?;
        Ok(Self { address, config: Arc::new(config) })
    }

    fn connect(&self) -> Result<StreamOwned<ClientConnection, TcpStream>> {
        let name = ServerName::IpAddress(self.address.ip().into());
        let session = ClientConnection::new(Arc::clone(&self.config), name)?;
        Ok(StreamOwned::new(session, TcpStream::connect(self.address)?))
    }
}

/// One request on a connection of its own, so that a read never waits behind a watch that is held.
fn carry(stream: TcpStream, server: Arc<ServerConfig>, upstream: &Upstream, gate: &Gate) -> Result<()> {
    let mut client = StreamOwned::new(ServerConnection::new(server)?, stream);
    let head = head(&mut client)?;
    let is_watch = head.lines().next().is_some_and(|line| line.contains("watch=true"));
    gate.pass(is_watch);
    let mut server = upstream.connect()?;
    let (line, rest) = head.split_once("\r\n").context("a request line")?;
    server.write_all(format!("{line}\r\nConnection: close\r\n{rest}").as_bytes())?;
    let mut part = vec![0; 16 << 10];
    loop {
        let size = server.read(&mut part)?;
        gate.pass(is_watch);
        client.write_all(&part[..size])?;
        client.flush()?;
        if size == 0 {
            client.conn.send_close_notify();
            return Ok(client.flush()?);
        }
    }
}

/// Up to the empty line; what surefoot's webhook asks has no body.
pub(crate) fn head(stream: &mut impl Read) -> Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    }
    Ok(String::from_utf8(head)?)
}
