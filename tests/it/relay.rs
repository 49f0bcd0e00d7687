//! Between surefoot and the API server: passes everything on and notes it, until it is told to hold the watches back, or
//! all of it, or a rule says what becomes of a request. So a cache can be made old, and an API server slow or broken, at a
//! moment of the trial's choice.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
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

/// A request, as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
}

impl Asked {
    pub(crate) fn is_watch(&self) -> bool {
        self.path.contains("watch=true")
    }

    pub(crate) fn is_write(&self) -> bool {
        self.method != "GET"
    }

    /// What it is about, e.g. `PATCH deployments dry run`: the plural stands after the namespace, where there is one.
    pub(crate) fn kind(&self) -> String {
        let (path, query) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let steps: Vec<&str> = path.split('/').collect();
        let named = steps.iter().position(|step| *step == "namespaces").filter(|at| steps.len() > at + 2);
        let plural = named.map_or_else(|| steps.last().copied(), |at| steps.get(at + 2).copied()).unwrap_or_default();
        let verb = if self.is_watch() { "WATCH" } else { &self.method };
        format!("{verb} {plural}{}", if query.contains("dryRun") { " dry run" } else { "" })
    }
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    Pass,
    /// The API server never hears of it.
    Refused {
        code: u16,
        reason: &'static str,
        retry_after: Option<u32>,
    },
    /// What the API server answers comes this much later; the connection is closed then if `lost`.
    Late {
        by: Duration,
        lost: bool,
    },
    /// The connection is closed after this time, whatever is under way.
    Cut(Duration),
    /// It stays under way to the API server for so long.
    Stuck(Duration),
    /// A watch that says that its resource version is too old.
    Gone,
    /// A watch that says that nothing has happened, and then ends.
    Bookmarks,
}

type Rule = Box<dyn FnMut(&Asked) -> Fate + Send>;

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
    rule: Mutex<Option<Rule>>,
    asked: Mutex<Vec<Asked>>,
    refused: Mutex<Vec<Asked>>,
    /// Of the watches that are under way.
    open: Mutex<Vec<TcpStream>>,
    /// Laid on what is asked about guarded namespaces, so that surefoot sees only those of one trial.
    only: Option<String>,
}

impl Gate {
    fn fate(&self, asked: &Asked) -> Fate {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
        let mut rule = self.rule.lock().unwrap_or_else(PoisonError::into_inner);
        let fate = rule.as_mut().map_or(Fate::Pass, |rule| rule(asked));
        if matches!(fate, Fate::Refused { .. }) {
            self.refused.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
        }
        fate
    }

    /// Returns once what is asked for is no longer held.
    fn pass(&self, is_watch: bool) {
        let from = if is_watch { Held::Watches } else { Held::All };
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.moved.wait_while(held, |held| *held >= from));
    }
}

impl Relay {
    pub(crate) fn start(plane: &ControlPlane) -> Result<Self> {
        Self::start_for(plane, None)
    }

    /// One through which surefoot sees only the namespaces with this label, e.g. `stage=one`.
    pub(crate) fn start_for(plane: &ControlPlane, only: Option<&str>) -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.self_signed(&key)?;
        let file = run::subfolder("relay")?.join("ca.crt");
        fs::write(&file, certificate.pem())?;
        let server = serving(certificate.pem().as_bytes(), key.serialize_pem().as_bytes())?;
        let upstream = Upstream::of(plane)?;
        let gate = Arc::new(Gate {
            held: Mutex::new(Held::Nothing),
            moved: Condvar::new(),
            rule: Mutex::default(),
            asked: Mutex::default(),
            refused: Mutex::default(),
            open: Mutex::default(),
            only: only.map(|label| label.replace('=', "%3D")),
        });
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

    /// From now on this decides on each request.
    pub(crate) fn rule(&self, rule: impl FnMut(&Asked) -> Fate + Send + 'static) {
        *self.gate.rule.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(rule));
    }

    /// All that was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.gate.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What of it the relay refused.
    pub(crate) fn refused(&self) -> Vec<Asked> {
        self.gate.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Breaks off the watches that are under way.
    pub(crate) fn cut(&self) {
        let open = std::mem::take(&mut *self.gate.open.lock().unwrap_or_else(PoisonError::into_inner));
        // One that has ended by itself is no error.
        open.iter().for_each(|watch| drop(watch.shutdown(Shutdown::Both)));
    }

    /// A copy of a kubeconfig that leads here.
    pub(crate) fn account(&self, kubeconfig: &Path) -> Result<PathBuf> {
        let copy = self.certificate.with_file_name("kubeconfig");
        fs::copy(kubeconfig, &copy)?;
        self.redirect(&copy)?;
        Ok(copy)
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
    let (line, rest) = head.split_once("\r\n").context("a request line")?;
    let mut body = vec![0; length(rest)];
    client.read_exact(&mut body)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let asked = Asked { at: Instant::now(), method, path };
    let is_watch = asked.is_watch();
    let fate = gate.fate(&asked);
    if let Some(answer) = own_answer(&asked, &fate) {
        client.write_all(answer.as_bytes())?;
        return close(client);
    }
    if let Fate::Stuck(time) = fate {
        thread::sleep(time);
    }
    gate.pass(is_watch);
    let line = match &gate.only {
        Some(label) => line.replacen("surefoot.dev%2Fguard", &format!("surefoot.dev%2Fguard%2C{label}"), 1),
        None => line.to_owned(),
    };
    let mut server = upstream.connect()?;
    server.write_all(&[format!("{line}\r\nConnection: close\r\n{rest}").as_bytes(), &body].concat())?;
    if let Fate::Cut(after) = fate {
        let (one, other) = (client.sock.try_clone()?, server.sock.try_clone()?);
        thread::spawn(move || {
            thread::sleep(after);
            [one, other].map(|socket| socket.shutdown(Shutdown::Both).is_ok())
        });
    }
    if is_watch {
        gate.open.lock().unwrap_or_else(PoisonError::into_inner).push(client.sock.try_clone()?);
    }
    let mut part = vec![0; 16 << 10];
    let mut fate = Some(fate);
    loop {
        let size = server.read(&mut part)?;
        if let Some(Fate::Late { by, lost }) = fate.take() {
            thread::sleep(by);
            if lost {
                return Ok(());
            }
        }
        gate.pass(is_watch);
        client.write_all(&part[..size])?;
        client.flush()?;
        if size == 0 {
            return close(client);
        }
    }
}

/// What the relay answers by itself.
fn own_answer(asked: &Asked, fate: &Fate) -> Option<String> {
    let status = |code: u16, reason: &str| {
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
            "message": format!("the relay says {reason}")})
    };
    let head = |code: u16, more: &str| {
        format!("HTTP/1.1 {code} Because\r\nContent-Type: application/json\r\nConnection: close\r\n{more}\r\n")
    };
    let event = |kind: &str, object: Value| format!("{}\n", json!({"type": kind, "object": object}));
    match fate {
        Fate::Refused { code, reason, retry_after } => {
            let after = retry_after.map_or_else(String::new, |seconds| format!("Retry-After: {seconds}\r\n"));
            let body = status(*code, reason).to_string();
            Some(format!("{}{body}", head(*code, &format!("{after}Content-Length: {}\r\n", body.len()))))
        }
        Fate::Gone => Some(format!("{}{}", head(200, ""), event("ERROR", status(410, "Expired")))),
        Fate::Bookmarks => {
            let revision = asked.path.split("resourceVersion=").nth(1).and_then(|rest| rest.split('&').next());
            let object = json!({"kind": "Any", "apiVersion": "v1", "metadata": {"resourceVersion": revision}});
            Some(format!("{}{}", head(200, ""), event("BOOKMARK", object).repeat(3)))
        }
        _ => None,
    }
}

fn close(mut client: StreamOwned<ServerConnection, TcpStream>) -> Result<()> {
    client.conn.send_close_notify();
    Ok(client.flush()?)
}

/// Of the body that follows this head.
fn length(head: &str) -> usize {
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    };
    head.lines().find_map(field).unwrap_or(0)
}

/// Up to the empty line.
pub(crate) fn head(stream: &mut impl Read) -> Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    }
    Ok(String::from_utf8(head)?)
}
