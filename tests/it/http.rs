//! What strangers may send to the webhook's port: the right status or a verdict with a reason, and the server serves on.
//!
//! The real server over real TLS, in this process; the cluster behind it is away, which is one more thing it has to bear.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use libtest_mimic::Trial;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use surefoot::{
    admission::{PolicySet, Source},
    cluster::ClusterFacts,
    config::Config,
    webhook::{App, MAX_BODY, Rules, State, router, server, tls},
};
use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot, task::JoinHandle};

use crate::{shared::program, support::run, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("http::what_is_no_review_gets_a_status", what_is_no_review_gets_a_status),
        trial("http::large_and_slow_bodies_end", large_and_slow_bodies_end),
        trial("http::a_crowd_of_containers_gets_its_verdict", a_crowd_of_containers_gets_its_verdict),
        trial("http::bodies_have_a_bounded_room_together", bodies_have_a_bounded_room_together),
        trial("http::connections_that_are_none_hurt_nobody", connections_that_are_none_hurt_nobody),
        trial("http::probes_and_metrics", probes_and_metrics),
        trial("http::a_policy_that_never_ends_costs_its_verdict", a_policy_that_never_ends_costs_its_verdict),
        trial("http::a_policy_that_always_overruns_is_set_aside", a_policy_that_always_overruns_is_set_aside),
        trial("http::what_was_asked_is_answered_before_the_end", what_was_asked_is_answered_before_the_end),
        trial("http::what_does_not_load_is_said_with_its_place", what_does_not_load_is_said_with_its_place),
    ]
}

/// Longer than the server takes for anything here.
const LIMIT: Duration = Duration::from_secs(20);

/// A server of its own; it ends when told, or with the run.
struct Server {
    address: SocketAddr,
    app: Arc<App>,
    client: Arc<ClientConfig>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
    runtime: Runtime,
}

impl Server {
    fn start() -> Result<Self> {
        Self::with(PolicySet::built_in_sources())
    }

    fn with(policies: Vec<Source>) -> Result<Self> {
        let certs = certs()?;
        let set = PolicySet::load(policies, &Config::default()).map_err(|errors| anyhow!("{errors}"))?;
        let tls = tls::Served::new(&tls::load(&certs.join("tls.crt"), &certs.join("tls.key"))?).config()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let app = {
            let _entered = runtime.enter();
            // Port 9 is discard: nobody listens.
            let client = kube::Client::try_from(kube::Config::new("http://127.0.0.1:9".parse()?))?;
            Arc::new(App::new(Rules { set, config: Config::default() }, ClusterFacts::new(client, "surefoot-system").0))
        };
        let (stop, stopped) = oneshot::channel();
        let (served, router) = (Arc::clone(&app), router(Arc::clone(&app)));
        let serving = runtime.spawn(async move {
            let stopped = async { drop(stopped.await) };
            server::serve(listener, tls, router, stopped, || served.enter(State::Stopping)).await;
        });
        Ok(Self { address, app, client: trusting(&certs.join("ca.crt"))?, stop: Some(stop), serving, runtime })
    }

    fn ready() -> Result<Self> {
        let server = Self::start()?;
        server.app.enter(State::Ready);
        Ok(server)
    }

    fn connect(&self) -> Result<StreamOwned<ClientConnection, TcpStream>> {
        let session = ClientConnection::new(Arc::clone(&self.client), ServerName::IpAddress(self.address.ip().into()))?;
        Ok(StreamOwned::new(session, self.tcp()?))
    }

    fn tcp(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(stream)
    }

    /// One request on one connection; `headers` without the length.
    fn ask(&self, line: &str, headers: &str, body: &[u8]) -> Result<Answer> {
        let head = format!(
            "{line} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        self.send(&[head.as_bytes(), body])
    }

    fn send(&self, parts: &[&[u8]]) -> Result<Answer> {
        let mut stream = self.connect()?;
        for part in parts {
            // A server that has answered before it has read all may close; the answer is what counts.
            if stream.write_all(part).is_err() {
                break;
            }
        }
        answer(&mut stream)
    }

    fn post(&self, path: &str, body: &[u8]) -> Result<Answer> {
        self.ask(&format!("POST {path}"), "Content-Type: application/json\r\n", body)
    }

    /// A review that is in order is still answered.
    fn serves_on(&self) -> Result<()> {
        let answer = self.post("/validate", review("CREATE").to_string().as_bytes())?;
        ensure!(answer.status == 200 && answer.json()?["response"]["uid"] == "u-1", "{answer:?}");
        Ok(())
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    closes: bool,
    body: String,
}

impl Answer {
    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {self:?}"))
    }
}

/// Up to the end of the connection.
fn answer(stream: &mut impl Read) -> Result<Answer> {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes)
        && (bytes.is_empty() || !matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset))
    {
        return Err(error.into());
    }
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no head in {text:?}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    Ok(Answer { status, closes: closes(head), body: body.to_owned() })
}

/// Whether its sender has said that no other answer comes on the same connection.
fn closes(head: &str) -> bool {
    head.to_ascii_lowercase().contains("connection: close")
}

/// Certificates as `surefoot certs` makes them, once.
fn certs() -> Result<&'static PathBuf> {
    static CERTS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = CERTS.get_or_init(|| {
        let make = || -> Result<PathBuf> {
            let dir = run::subfolder("http")?.join("certs");
            let status = Command::new(program()).arg("certs").arg(&dir).stdout(std::process::Stdio::null()).status()?;
            ensure!(status.success(), "surefoot certs: {status}");
            Ok(dir)
        };
        make().map_err(|error| format!("{error:#}"))
    });
    made.as_ref().map_err(|error| anyhow!("{error}"))
}

fn trusting(ca: &std::path::Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn review(operation: &str) -> Value {
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "m", "namespace": "shop"},
        "spec": {"selector": {"matchLabels": {"app": "m"}}, "template": {"metadata": {"labels": {"app": "m"}},
            "spec": {"containers": [{"name": "model", "image": "r/m:latest"}]}}}});
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "operation": operation, "name": "m", "namespace": "shop",
        "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
        "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
        "userInfo": {"username": "ana"}, "object": deployment, "oldObject": null}})
}

/// The review with one thing of its request changed; `Null` takes it away.
fn changed(pointer: &str, value: Value) -> Vec<u8> {
    let mut review = review("CREATE");
    if let Some((parent, key)) = pointer.rsplit_once('/')
        && let Some(Value::Object(members)) = review.pointer_mut(parent)
    {
        match value {
            Value::Null => drop(members.remove(key)),
            value => drop(members.insert(key.to_owned(), value)),
        }
    }
    review.to_string().into_bytes()
}

fn what_is_no_review_gets_a_status() -> Result<()> {
    let server = Server::ready()?;
    let good = review("CREATE").to_string().into_bytes();
    let mut latin = good.clone();
    let name = latin.windows(3).position(|bytes| bytes == b"ana").context("no ana")?;
    latin[name] = 0xe4;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "m"}});
    let rows: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("empty", Vec::new(), 400, "no JSON"),
        ("no JSON", b"hello".to_vec(), 400, "no JSON"),
        ("truncated", good[..good.len() - 40].to_vec(), 400, "no JSON"),
        ("something after it", [&good[..], b"{}"].concat(), 400, "no JSON"),
        ("not UTF-8", latin, 400, "no JSON"),
        ("nested 100,000 deep", vec![b'['; 100_000], 400, "nested"),
        ("nested in the object", changed("/request/object/x", nested(200)), 400, "nested"),
        ("a list", b"[]".to_vec(), 400, "AdmissionReview"),
        ("v1beta1", changed("/apiVersion", json!("admission.k8s.io/v1beta1")), 400, "admission.k8s.io/v1 only"),
        ("another kind", changed("/kind", json!("Review")), 400, "AdmissionReview"),
        ("no request", changed("/request", Value::Null), 400, "request"),
        ("no uid", changed("/request/uid", Value::Null), 400, "uid"),
        ("a uid that is no string", changed("/request/uid", json!(7)), 400, "uid"),
        ("no object", changed("/request/object", Value::Null), 400, "object"),
        ("UPDATE without oldObject", changed("/request/operation", json!("UPDATE")), 400, "oldObject"),
        ("an unknown operation", changed("/request/operation", json!("PAINT")), 400, "PAINT"),
        ("an object of another kind", changed("/request/object", pod), 400, "Pod"),
    ];
    for (what, body, status, says) in rows {
        for path in ["/validate", "/mutate", "/scale"] {
            let answer = server.post(path, &body).with_context(|| what.to_owned())?;
            ensure!((answer.status, answer.body.contains(says)) == (status, true), "{what} to {path}: {answer:?}");
        }
    }
    server.serves_on()?;

    for (line, headers, status) in [
        ("POST /validate", "", 415),
        ("POST /validate", "Content-Type: application/yaml\r\n", 415),
        ("POST /validate", "Content-Type: application/json; charset=utf-8\r\n", 200),
        ("GET /validate", "", 405),
        ("PUT /mutate", "Content-Type: application/json\r\n", 405),
        ("POST /nothing", "Content-Type: application/json\r\n", 404),
    ] {
        let answer = server.ask(line, headers, &good)?;
        ensure!(answer.status == status, "{line} {headers:?}: {answer:?}");
    }

    // Kinds that nobody registered: allowed, with a reason.
    let kinds = json!({"group": "", "version": "v1", "kind": "Pod"});
    let mut foreign = review("CREATE");
    foreign["request"]["kind"] = kinds;
    foreign["request"]["object"]["kind"] = json!("Pod");
    let answer = server.post("/validate", foreign.to_string().as_bytes())?.json()?;
    ensure!(answer["response"]["allowed"] == true && answer["response"]["warnings"][0].is_string(), "{answer}");

    // The cluster is away, so the namespace counts as enforce.
    let answer = server.post("/validate", &good)?.json()?;
    ensure!(answer["response"]["allowed"] == false && answer["response"]["status"]["code"] == 403, "{answer}");
    let answer = server.post("/mutate", &good)?.json()?;
    ensure!(answer["response"]["allowed"] == true, "{answer}");
    server.serves_on()
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!([inner]))
}

fn large_and_slow_bodies_end() -> Result<()> {
    let server = Server::ready()?;
    let head = |more: &str| {
        format!("POST /validate?timeout=1s HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n{more}\r\n\r\n")
    };
    // As large as it may be.
    let filled = changed("/request/object/x", json!("x".repeat(MAX_BODY - 2000)));
    // A machine that does much else may take longer to send it than it may take.
    let begun = Instant::now();
    loop {
        let answer = server.post("/validate?timeout=10s", &filled)?;
        if answer.status == 200 {
            break;
        }
        ensure!(answer.status == 408 && begun.elapsed() < LIMIT, "{answer:?}");
    }

    let announced = head(&format!("Content-Length: {}", MAX_BODY + 1));
    let answer = server.send(&[announced.as_bytes()])?;
    ensure!(answer.status == 413 && answer.body.contains("8 MiB"), "{answer:?}");

    let chunked = head("Transfer-Encoding: chunked");
    let chunk = [format!("{:x}\r\n", 1 << 20).into_bytes(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    let mut parts = vec![chunked.as_bytes()];
    parts.extend(std::iter::repeat_n(&chunk[..], 9));
    let answer = server.send(&parts)?;
    ensure!(answer.status == 413, "{answer:?}");

    let begun = Instant::now();
    let answer = server.send(&[head("Content-Length: 500").as_bytes(), b"{"])?;
    ensure!(answer.status == 408 && begun.elapsed() < Duration::from_secs(5), "{answer:?} after {:?}", begun.elapsed());

    // Ends in the middle: nobody is left to answer.
    let mut stream = server.connect()?;
    stream.write_all(head("Content-Length: 500").as_bytes())?;
    stream.write_all(b"{\"kind\"")?;
    drop(stream);
    server.serves_on()
}

fn bodies_have_a_bounded_room_together() -> Result<()> {
    let server = Server::ready()?;
    let stop = AtomicBool::new(false);
    let head = format!(
        "POST /validate?timeout=30s HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {MAX_BODY}\r\n\r\n"
    );
    let stall = || -> Result<u16> {
        let mut stream = server.connect()?;
        stream.write_all(head.as_bytes())?;
        stream.write_all(b"{")?;
        stream.flush()?;
        Ok(answer(&mut stream)?.status)
    };
    let large = changed("/request/object/x", json!("x".repeat(1 << 20)));
    thread::scope(|scope| {
        // As large as one may be, but for what is in them, again and again.
        let stalling: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    while !stop.load(Ordering::Relaxed) {
                        let status = stall()?;
                        ensure!(status == 408, "{status}");
                    }
                    Ok(())
                })
            })
            .collect();
        let told = (|| {
            let begun = Instant::now();
            // Their room is full, and says so.
            loop {
                let answer = server.post("/validate?timeout=200ms", &large)?;
                if answer.status == 503 && answer.body.contains("overloaded: the requests that are being judged fill") {
                    break;
                }
                ensure!(begun.elapsed() < LIMIT, "{answer:?}");
            }
            // Who is not as large is not kept waiting; and probes need no room.
            while begun.elapsed() < Duration::from_secs(5) {
                let asked = Instant::now();
                server.serves_on()?;
                ensure!(server.ask("GET /readyz", "", b"")?.status == 200, "not ready");
                ensure!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        for stalling in stalling {
            stalling.join().map_err(|_| anyhow!("panicked"))??;
        }
        told
    })?;
    // What was given back counts at once.
    let answer = server.post("/validate?timeout=20s", &large)?;
    ensure!(answer.status == 200, "{answer:?}");
    let metrics = server.ask("GET /metrics", "", b"")?.body;
    for reason in ["no-room", "slow-body"] {
        ensure!(metrics.contains(&format!("surefoot_refused_requests_total{{reason=\"{reason}\"}}")), "{metrics}");
    }
    Ok(())
}

fn connections_that_are_none_hurt_nobody() -> Result<()> {
    let server = Server::ready()?;
    let mut plain = server.tcp()?;
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")?;
    let mut rest = Vec::new();
    // It gets a TLS alert or a reset, and no page.
    let _ended = plain.read_to_end(&mut rest);
    ensure!(!rest.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&rest));

    // Fifty that say nothing, and one that wants HTTP/2.
    let silent: Vec<TcpStream> = (0..50).map(|_| server.tcp()).collect::<Result<_>>()?;
    let mut config = (*server.client).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let session = ClientConnection::new(Arc::new(config), ServerName::IpAddress(server.address.ip().into()))?;
    let mut wants_h2 = StreamOwned::new(session, server.tcp()?);
    ensure!(
        wants_h2.write_all(b"PRI * HTTP/2.0\r\n\r\n").is_err() || wants_h2.read(&mut [0]).is_err(),
        "HTTP/2 was taken"
    );
    server.serves_on()?;

    // Nobody waits for ever: the silent ones are let go within the time of a handshake.
    for mut stream in silent {
        let mut rest = Vec::new();
        let _ended = stream.read_to_end(&mut rest);
    }

    // A head without end, garbage for a head.
    let mut stream = server.connect()?;
    let _cut = stream.write_all(&vec![b'A'; 1 << 20]);
    let gone = answer(&mut stream);
    ensure!(gone.as_ref().map_or(true, |answer| answer.status >= 400), "{gone:?}");
    server.serves_on()
}

fn probes_and_metrics() -> Result<()> {
    let server = Server::start()?;
    let get = |path: &str| server.ask(&format!("GET {path}"), "", b"");
    ensure!(get("/healthz")?.status == 200 && get("/readyz")?.status == 503, "live at once, ready later");
    let early = server.post("/validate", review("CREATE").to_string().as_bytes())?;
    ensure!(early.status == 503 && early.body.contains("not ready"), "{early:?}");

    server.app.enter(State::Ready);
    let ready = get("/readyz?verbose")?;
    ensure!(ready.status == 200 && ready.body.contains("policies") && ready.body.contains("facts"), "{ready:?}");
    server.serves_on()?;
    server.post("/validate", b"")?;
    let metrics = get("/metrics")?;
    for line in [
        "surefoot_reviews_total{hook=\"validate\",operation=\"create\",verdict=\"denied\"} 1",
        "surefoot_refused_requests_total{reason=\"malformed\"} 1",
        "surefoot_refused_requests_total{reason=\"not-ready\"} 1",
        "surefoot_findings_total{policy=\"probes\",level=\"deny\"}",
        "surefoot_review_seconds_count{hook=\"validate\"}",
        "surefoot_ready 1",
        "surefoot_policy_set_info{digest=\"",
    ] {
        ensure!(metrics.body.contains(line), "no {line} in:\n{}", metrics.body);
    }
    server.app.enter(State::Stopping);
    ensure!(get("/readyz")?.status == 503 && get("/healthz")?.status == 200, "stopping is alive, not ready");
    // It is a latch: nothing leads back.
    server.app.enter(State::Ready);
    ensure!(get("/readyz")?.status == 503, "ready again");
    server.serves_on()
}

/// Rego that computes for hours: the policy is named, everybody else is answered meanwhile.
fn a_policy_that_never_ends_costs_its_verdict() -> Result<()> {
    let endless = Source {
        path: "endless/policy.rego".to_owned(),
        text: "# METADATA
# title: Endless
package surefoot.endless

many := numbers.range(1, 100000)

deny contains \"counted\" if {
	input.request.name == \"slow\"
	some a in many
	some b in many
	a * b == 0
}
"
        .to_owned(),
    };
    let server = Server::with(vec![endless])?;
    server.app.enter(State::Ready);
    let slow = changed("/request/name", json!("slow"));
    let begun = Instant::now();
    let answers = thread::scope(|scope| {
        let asked: Vec<_> = (0..2).map(|_| scope.spawn(|| server.post("/validate?timeout=2s", &slow))).collect();
        let _meanwhile = server.ask("GET /healthz", "", b"")?;
        asked.into_iter().map(|asked| asked.join().map_err(|_| anyhow!("panicked"))?).collect::<Result<Vec<_>>>()
    })?;
    ensure!(begun.elapsed() < Duration::from_secs(8), "answered after {:?}", begun.elapsed());
    for answer in answers {
        let response = &answer.json()?["response"];
        let message = response["status"]["message"].as_str().unwrap_or_default();
        ensure!(response["allowed"] == false && message.contains("endless/policy.rego"), "{answer:?}");
    }
    let metrics = server.ask("GET /metrics", "", b"")?.body;
    ensure!(metrics.contains("surefoot_policy_failures_total{policy=\"endless\"} 2"), "{metrics}");
    let fine = server.post("/validate", review("CREATE").to_string().as_bytes())?.json()?;
    ensure!(fine["response"]["allowed"] == true, "{fine}");
    Ok(())
}

/// Nobody waits for what never ends in time, once that has shown; and it is told in the same way.
fn a_policy_that_always_overruns_is_set_aside() -> Result<()> {
    let endless = Source {
        path: "slow/policy.rego".to_owned(),
        text: "package surefoot.slow

many := numbers.range(1, 100000)

deny contains \"counted\" if {
	some a in many
	some b in many
	a * b == 0
}
"
        .to_owned(),
    };
    let server = Server::with(vec![endless])?;
    server.app.enter(State::Ready);
    let ask = |name: &str| -> Result<(String, Duration)> {
        let begun = Instant::now();
        let answer = server.post("/validate?timeout=3s", &changed("/request/name", json!(name)))?.json()?;
        let message = answer["response"]["status"]["message"].as_str().unwrap_or_default().to_owned();
        ensure!(answer["response"]["allowed"] == false && message.contains("slow/broken"), "{answer}");
        Ok((message, begun.elapsed()))
    };
    for name in ["a", "a", "a", "a", "b", "c"] {
        let (message, _) = ask(name)?;
        ensure!(message.contains("did not end within"), "{name}: {message}");
    }
    for name in ["a", "d"] {
        let (message, took) = ask(name)?;
        ensure!(message.contains("is not asked for 30 s") && took < Duration::from_millis(400), "{took:?}: {message}");
    }
    let metrics = server.ask("GET /metrics", "", b"")?.body;
    ensure!(metrics.contains("surefoot_policy_set_aside{policy=\"slow\"} 1"), "{metrics}");
    ensure!(metrics.contains("surefoot_policy_failures_total{policy=\"slow\"} 8"), "{metrics}");
    let told = server.ask("GET /readyz?verbose", "", b"")?;
    ensure!(told.status == 200 && told.body.contains("set aside    policy slow, "), "{told:?}");
    Ok(())
}

fn what_was_asked_is_answered_before_the_end() -> Result<()> {
    let mut server = Server::ready()?;
    let body = review("CREATE").to_string().into_bytes();
    // An API server keeps its connections, and may ask on one in the moment in which we are told to stop.
    let mut kept = server.connect()?;
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")?;
    let mut first = Vec::new();
    while !first.ends_with(b"\r\n\r\nok\n") {
        let mut byte = [0];
        kept.read_exact(&mut byte)?;
        first.extend(byte);
    }
    ensure!(!closes(&String::from_utf8_lossy(&first)), "closed while nobody stops");

    // The server has read the head of a review (it says so) and half of the body when it is told to stop.
    let mut stream = server.connect()?;
    let head = format!(
        "POST /validate?timeout=10s HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    let mut goes_on = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut goes_on)?;
    stream.write_all(&body[..100])?;
    server.stop.take().context("stopped twice")?.send(()).map_err(|()| anyhow!("the server is gone"))?;
    let begun = Instant::now();
    while server.app.state() != State::Stopping {
        ensure!(begun.elapsed() < LIMIT, "it does not stop");
        thread::yield_now();
    }
    stream.write_all(&body[100..])?;
    let last = answer(&mut stream)?;
    ensure!(last.status == 200 && last.body.contains("u-1") && last.closes, "{last:?}");
    let mut one_more = head.replace("Expect: 100-continue\r\n", "").into_bytes();
    one_more.extend_from_slice(&body);
    kept.write_all(&one_more)?;
    let last = answer(&mut kept)?;
    ensure!(last.status == 200 && last.body.contains("u-1") && last.closes, "{last:?}");
    // With a connection that nobody uses it ends, too.
    let _idle = server.connect()?;
    let end = async { tokio::time::timeout(LIMIT, &mut server.serving).await };
    server.runtime.block_on(end).context("it did not end")??;
    ensure!(TcpStream::connect(server.address).is_err(), "it still listens");
    Ok(())
}

/// `surefoot webhook` with what does not load: exit code 2, and the file, line and column.
fn what_does_not_load_is_said_with_its_place() -> Result<()> {
    let certs = certs()?;
    let dir = run::subfolder("http-load")?;
    let file = |name: &str, text: &str| -> Result<String> {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().context("no folder")?)?;
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let (cert, key) = (certs.join("tls.crt").display().to_string(), certs.join("tls.key").display().to_string());
    let bad_config =
        file("config.yaml", "apiVersion: surefoot.dev/v1\nkind: Config\npolicies:\n  probez: {action: Warn}\n")?;
    let kubeconfig = file("kubeconfig", "apiVersion: v1\nkind: Config\n")?;
    file("broken/probes/policy.rego", "package surefoot.probes\n\ndeny contains x if {\n")?;
    let (broken, none) = (dir.join("broken").display().to_string(), dir.join("none").display().to_string());
    let rows: Vec<(Vec<&str>, Vec<&str>)> = vec![
        (vec!["--tls-cert", &none, "--tls-key", &key], vec![&none, "cannot read", "surefoot certs"]),
        (vec!["--tls-cert", &key, "--tls-key", &key], vec!["tls.key holds no PEM certificate"]),
        (
            vec!["--tls-cert", &cert, "--tls-key", &key, "--config", &bad_config],
            vec!["config.yaml:4:3", "probez", "probes"],
        ),
        (vec!["--tls-cert", &cert, "--tls-key", &key, "--config", &none], vec![&none]),
        (vec!["--tls-cert", &cert, "--tls-key", &key, "--policies", &broken], vec!["policy.rego:"]),
        (vec!["--tls-cert", &cert, "--tls-key", &key, "--policies", &none], vec![&none]),
        (vec!["--tls-cert", &cert, "--tls-key", &key, "--kubeconfig", &none], vec![&none, "kubeconfig"]),
        (vec!["--tls-cert", &cert, "--tls-key", &key, "--kubeconfig", &kubeconfig], vec!["kubeconfig"]),
    ];
    for (arguments, says) in rows {
        let mut command = Command::new(program());
        command.args(["webhook", "--listen", "127.0.0.1:0"]).args(&arguments);
        let output = command.output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2), "{arguments:?}: {} {stderr}", output.status);
        for text in says {
            ensure!(stderr.contains(text), "{arguments:?}: no {text:?} in {stderr}");
        }
    }
    Ok(())
}

/// A Deployment of so many containers, and of 3 MB, the most that the API server takes.
fn crowd(containers: usize, good: bool) -> Value {
    let probe = |failures: u32| json!({"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 10, "failureThreshold": failures});
    let filling = "x".repeat(3_000_000 / containers - 650);
    let container = |number: usize| {
        let mut container = json!({"name": format!("c{number}"), "image": format!("registry.local/m{number}:latest"),
            "env": [{"name": "FILLING", "value": filling}]});
        if good {
            container["image"] = json!("registry.local/model:1.2.3");
            container["ports"] = json!([{"name": "http", "containerPort": 1000 + number}]);
            container["startupProbe"] = probe(30);
            container["readinessProbe"] = probe(3);
            container["livenessProbe"] = probe(6);
            container["resources"] =
                json!({"requests": {"cpu": "10m", "memory": "1Mi"}, "limits": {"cpu": "10m", "memory": "1Mi"}});
        }
        container
    };
    let labels = json!({"app": "m", "surefoot.dev/model": "m", "app.kubernetes.io/version": "1.2.3"});
    let containers: Vec<Value> = (0..containers).map(container).collect();
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "m", "namespace": "shop", "labels": labels},
        "spec": {"replicas": 2, "minReadySeconds": 10, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": {"app": "m"}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}}}})
}

fn a_crowd_of_containers_gets_its_verdict() -> Result<()> {
    let server = Server::ready()?;
    let send = |path: &str, review: &Value| {
        let begun = Instant::now();
        let answer = server.post(&format!("{path}?timeout=30s"), review.to_string().as_bytes())?;
        println!(
            "http: {path} of {} bytes: {} bytes after {:?}",
            review.to_string().len(),
            answer.body.len(),
            begun.elapsed()
        );
        answer.json()
    };
    for good in [true, false] {
        let mut review = review("CREATE");
        review["request"]["object"] = crowd(2000, good);
        let answer = send("/validate", &review)?;
        let message = answer["response"]["status"]["message"].as_str().unwrap_or_default();
        ensure!(answer["response"]["allowed"] == good, "{good}: {message:.2000}");
        ensure!(answer.to_string().len() < 64 << 10, "{good}: {} bytes", answer.to_string().len());
        let answer = send("/mutate", &review)?;
        ensure!(answer["response"]["allowed"] == true, "{answer:.2000}");
        let mut update = review.clone();
        update["request"]["operation"] = json!("UPDATE");
        update["request"]["oldObject"] = review["request"]["object"].clone();
        update["request"]["object"]["spec"]["template"]["spec"]["containers"][7]["image"] =
            json!("registry.local/model:latest");
        let answer = send("/validate", &update)?;
        ensure!(answer["response"]["allowed"] == false, "{answer:.2000}");
    }
    server.serves_on()
}
