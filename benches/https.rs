//! Reviews per second over HTTPS, as the API server sends them: the real server with its facts from a real control
//! plane, pinned to one core; connections that are kept; every body another one, and then the same one again and again.
//!
//! `make bench` runs it as it ships. The bars: on that core 2,500 reviews a second of 8.6 KB, each another one; 8,000 where it is the
//! same again (all but its uid); 25 MB resident before the first, 45 MB with 10,000 guarded Deployments watched.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use support::{ControlPlane, Surefoot, run};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::TlsConnector;

#[path = "../tests/support/mod.rs"]
mod support;

/// Before figures count: connections, caches, allocator.
const WARM: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(5);

fn main() -> Result<()> {
    run::janitor_if_asked();
    let done = bench();
    run::end();
    done
}

fn bench() -> Result<()> {
    let plane = ControlPlane::start()?;
    let mut surefoot = Surefoot::install(&plane, Path::new(env!("CARGO_BIN_EXE_surefoot")), EMPTY)?;
    plane
        .admin()
        .apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {surefoot.dev/guard: enforce}}}")?;
    let cores = sched_getaffinity(None)?;
    let mut all = (0..CpuSet::MAX_CPU).filter(|core| cores.is_set(*core));
    let (first, second) = (all.next().context("no core")?, all.next());
    // The server inherits the core of the thread that starts it.
    pin(first)?;
    surefoot.start_webhook()?;
    match second {
        Some(core) => pin(core)?,
        None => println!("one core only: client and control plane share it with the server"),
    }
    let server = Server::of(&surefoot)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;

    let (idle, _) = resident(surefoot.listen().port())?;
    let create = Template::new(&review("CREATE", 8_600))?;
    let update = Template::new(&review("UPDATE", 16_600))?;
    let again = create.of_one()?;
    println!("{:<16}{:>12}{:>14}{:>10}{:>10}   bar", "body", "connections", "reviews/s", "p50", "p99");
    for (operation, template, connections, bar) in [
        ("CREATE", &create, 1, None),
        ("CREATE", &create, 16, Some(2_500.0)),
        ("UPDATE", &update, 1, None),
        ("UPDATE", &update, 16, None),
        ("again", &again, 1, None),
        ("again", &again, 16, Some(8_000.0)),
    ] {
        let took = runtime.block_on(load(&server, template, connections))?;
        let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_micros() as f64 / 1000.0;
        let rate = took.len() as f64 / MEASURED.as_secs_f64();
        let what = format!("{operation} {:.1} KB", size(template));
        let bar = bar.map_or(String::new(), |bar| format!("{bar:.0}: {}", met(rate >= bar)));
        println!("{what:<16}{connections:>12}{rate:>14.0}{:>7.2} ms{:>7.2} ms   {bar}", at(0.5), at(0.99));
    }
    let (now, peak) = resident(surefoot.listen().port())?;
    println!("resident: {idle:.1} MB idle (25: {}), {now:.1} MB now, {peak:.1} MB at most", met(idle <= 25.0));
    surefoot.stop_webhook()?;

    let started = Instant::now();
    fill(&plane)?;
    println!("{WATCHED} Deployments of {:.1} KB made in {} s", size(&create), started.elapsed().as_secs());
    surefoot.start_webhook()?;
    let (synced, _) = resident(surefoot.listen().port())?;
    runtime.block_on(load(&server, &create, 16))?;
    let (now, peak) = resident(surefoot.listen().port())?;
    let bar = met(now <= 45.0);
    println!("resident: {synced:.1} MB watching them, {now:.1} MB after reviews (45: {bar}), {peak:.1} MB at most");
    surefoot.stop_webhook()
}

/// Guarded Deployments that the webhook watches.
const WATCHED: usize = 10_000;
/// The API server takes so many at once without queueing.
const WRITERS: usize = 8;

/// Makes them, of the size that the reviews have, while their namespace is not guarded yet. Paused, they get no ReplicaSets.
fn fill(plane: &ControlPlane) -> Result<()> {
    plane.admin().apply("{apiVersion: v1, kind: Namespace, metadata: {name: many}}")?;
    let mut object = review("CREATE", 8_600)["request"]["object"].take();
    object["spec"]["paused"] = json!(true);
    object["metadata"]["namespace"] = json!("many");
    for key in ["uid", "generation", "creationTimestamp", "managedFields"] {
        object["metadata"].as_object_mut().context("metadata")?.remove(key);
    }
    let text = object.to_string();
    let make = |writer: usize| {
        for number in (writer..WATCHED).step_by(WRITERS) {
            let body = text.replace(PLACE, &format!("{number:08}-0000"));
            let answer = plane.post("/apis/apps/v1/namespaces/many/deployments", &body)?;
            ensure!(answer.status == 201, "{} {}", answer.status, answer.body);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || make(writer))).collect();
        writers.into_iter().try_for_each(|writer| writer.join().unwrap_or_else(|_| bail!("a writer panicked")))
    })?;
    plane.admin().run(&["label", "namespace", "many", "surefoot.dev/guard=enforce"])?.success()?;
    Ok(())
}

fn size(template: &Template) -> f64 {
    template.fill(0, 0).len() as f64 / 1000.0
}

fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "missed" }
}

const EMPTY: &str = "apiVersion: surefoot.dev/v1\nkind: Config\n";

fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).context("pinning to a core")
}

struct Server {
    address: std::net::SocketAddr,
    tls: TlsConnector,
}

impl Server {
    fn of(surefoot: &Surefoot) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let folder = surefoot.config().parent().context("no folder")?.to_owned();
        roots.add(CertificateDer::from_pem_file(folder.join("ca.crt"))?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { address: surefoot.listen(), tls: TlsConnector::from(Arc::new(config)) })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::IpAddress(self.address.ip().into()), stream).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // It ends with its sender.
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// How long each review took that was answered within [`MEASURED`], sorted.
async fn load(server: &Server, template: &Template, connections: usize) -> Result<Vec<Duration>> {
    let begin = Instant::now() + WARM;
    let end = begin + MEASURED;
    let mut tasks = JoinSet::new();
    for connection in 0..connections {
        let (mut sender, template) = (server.connect().await?, template.clone());
        tasks.spawn(async move {
            let mut took = Vec::new();
            for count in 0_u32.. {
                let asked = Instant::now();
                if asked >= end {
                    break;
                }
                let body = template.fill(connection, count);
                let request = Request::post("/validate?timeout=3s")
                    .header(HOST, "bench")
                    .header(CONTENT_TYPE, "application/json");
                let answer = sender.send_request(request.body(Full::from(body))?).await?;
                let status = answer.status();
                let answer = answer.into_body().collect().await?.to_bytes();
                let answered = Instant::now();
                let fine = status == 200 && answer.windows(14).any(|window| window == b"\"allowed\":true");
                ensure!(fine, "{status} {}", String::from_utf8_lossy(&answer));
                if asked >= begin && answered <= end {
                    took.push(answered - asked);
                }
            }
            Ok(took)
        });
    }
    let mut all = Vec::new();
    while let Some(took) = tasks.join_next().await {
        all.extend(took??);
    }
    ensure!(!all.is_empty(), "nothing was answered");
    all.sort_unstable();
    Ok(all)
}

/// A review with a place for a number in its uid, name and environment.
#[derive(Clone)]
struct Template(Arc<Vec<String>>);

const PLACE: &str = "00000000-0000";
/// What follows it in the uid.
const UID: &str = "-4000-8000-000000000000";

impl Template {
    fn new(review: &Value) -> Result<Self> {
        let parts: Vec<String> = review.to_string().split(PLACE).map(str::to_owned).collect();
        ensure!(parts.len() > 3, "no place for a number");
        Ok(Self(Arc::new(parts)))
    }

    /// With a place in its uid only: the same review again, as the API server would send it.
    fn of_one(&self) -> Result<Self> {
        let number = "00000000-0001";
        let text = self.0.join(number);
        let uid = format!("{number}{UID}");
        let (before, after) = text.split_once(&uid).context("no uid")?;
        Ok(Self(Arc::new(vec![before.to_owned(), format!("{UID}{after}")])))
    }

    fn fill(&self, connection: usize, count: u32) -> String {
        let mut text = String::with_capacity(20_000);
        for (index, part) in self.0.iter().enumerate() {
            if index > 0 {
                let _ = write!(text, "{count:08}-{connection:04}");
            }
            text.push_str(part);
        }
        text
    }
}

/// A review of at least `size` bytes.
fn review(operation: &str, size: usize) -> Value {
    let mut settings = 0;
    loop {
        let review = review_with(operation, settings);
        if review.to_string().len() >= size {
            return review;
        }
        settings += 1;
    }
}

/// A Deployment with nothing to complain about, as the API server sends it: defaulted, with managedFields.
fn review_with(operation: &str, settings: usize) -> Value {
    let probe = |path: &str, failures: u32| {
        json!({"httpGet": {"path": path, "port": 8000, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
            "successThreshold": 1, "failureThreshold": failures})
    };
    let env: Vec<Value> = (0..settings)
        .map(|i| json!({"name": format!("SETTING_{i}"), "value": format!("a value of ordinary length, number {i}")}))
        .collect();
    let owned: serde_json::Map<String, Value> = (0..env.len())
        .map(|i| (format!("k:{{\"name\":\"SETTING_{i}\"}}"), json!({".": {}, "f:name": {}, "f:value": {}})))
        .collect();
    let labels = json!({"app": "churn", "app.kubernetes.io/version": "1.0.0"});
    // The new one differs from the old one in its template, or nobody would ask.
    let deployment = |note: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": format!("churn-{PLACE}"), "namespace": "shop", "uid": "b7a2c1f0-0000-4000-8000-000000000000",
                "generation": 1, "creationTimestamp": "2026-11-22T10:00:00Z",
                "labels": {"surefoot.dev/model": "churn", "app.kubernetes.io/version": "1.0.0"},
                "managedFields": [{"manager": "kubectl-client-side-apply", "operation": "Update", "apiVersion": "apps/v1",
                    "time": "2026-11-22T10:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:template": {"f:spec":
                        {"f:containers": {"k:{\"name\":\"model\"}": {"f:env": owned}}}}}}}]},
            "spec": {
                "replicas": 4, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600, "minReadySeconds": 60,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
                "selector": {"matchLabels": {"app": "churn"}},
                "template": {
                    "metadata": {"creationTimestamp": null, "labels": labels, "annotations": {"note": note}},
                    "spec": {
                        "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
                        "securityContext": {}, "schedulerName": "default-scheduler",
                        "containers": [{
                            "name": "model", "image": "registry.local/churn:1.0.0",
                            "ports": [{"name": "http", "containerPort": 8000, "protocol": "TCP"}], "env": env,
                            "startupProbe": probe("/ready", 5), "readinessProbe": probe("/ready", 3), "livenessProbe": probe("/live", 6),
                            "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
                            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                            "imagePullPolicy": "IfNotPresent",
                        }],
                    },
                },
            },
            "status": {},
        })
    };
    let old = if operation == "UPDATE" { deployment("as it was") } else { Value::Null };
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": format!("{PLACE}{UID}"), "operation": operation, "dryRun": false,
        "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
        "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
        "requestKind": {"group": "apps", "version": "v1", "kind": "Deployment"},
        "requestResource": {"group": "apps", "version": "v1", "resource": "deployments"},
        "name": format!("churn-{PLACE}"), "namespace": "shop",
        "userInfo": {"username": "ana", "groups": ["developers", "system:authenticated"]},
        "object": deployment(PLACE), "oldObject": old,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "kubectl-client-side-apply"}}})
}

/// Resident memory in MB of the server on this port: now, and the most it ever was.
fn resident(port: u16) -> Result<(f64, f64)> {
    let listen = format!("127.0.0.1:{port}");
    let is_server = |pid: &fs::DirEntry| {
        let command = fs::read(pid.path().join("cmdline")).unwrap_or_default();
        let mut arguments = command.split(|byte| *byte == 0);
        arguments.nth(1) == Some(b"webhook") && arguments.any(|argument| argument == listen.as_bytes())
    };
    let process = fs::read_dir("/proc")?.flatten().find(is_server).context("the server is gone")?;
    let status = fs::read_to_string(process.path().join("status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        let kilobytes: f64 = line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse()?;
        Ok::<_, anyhow::Error>(kilobytes / 1024.0)
    };
    Ok((field("VmRSS")?, field("VmHWM")?))
}
