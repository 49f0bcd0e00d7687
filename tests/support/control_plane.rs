//! A real control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, on free ports of the loopback
//! interface, each with its own user and log file.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use super::{
    http::{self, Https},
    kubectl::Kubectl,
    run::{self, Process},
    tools::tools,
    watch::{Look, until},
};

/// Name of the node in every control plane that has one.
pub(crate) const NODE: &str = "bed";

/// Who may log in: name (also of the kubeconfig), Kubernetes user, groups. Each part is its own user, or rules on
/// identity would be tested vacuously; `ana` and `olga` have no rights but those that a test gives them.
const USERS: [(&str, &str, &str); 8] = [
    ("admin", "admin", "system:masters"),
    ("ana", "ana", "developers"),
    ("olga", "olga", "oncall"),
    ("rita", "rita", "oncall"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("node", "system:node:bed", "system:nodes"),
    ("proxy", "system:kube-proxy", ""),
];

/// Writes to Deployments, as an auditor sees them: the log and what goes into it.
const AUDIT: &str = "audit.log";
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: Metadata, verbs: [create, update, patch], resources: [{group: apps, resources: [deployments, deployments/scale]}]}
  - level: None
";

/// Where one listens, and which addresses its Services have (the first of 256).
pub(crate) struct Place {
    pub(crate) address: Ipv4Addr,
    pub(crate) services: Ipv4Addr,
}

const APISERVER: &str = "kube-apiserver";

const LOOPBACK: Place = Place { address: Ipv4Addr::LOCALHOST, services: Ipv4Addr::new(198, 19, 0, 0) };

/// A running control plane; it ends when it is dropped, or with the run.
pub(crate) struct ControlPlane {
    folder: PathBuf,
    url: String,
    server: SocketAddr,
    client: Https,
    admin: Kubectl,
    apiserver: Vec<String>,
    // Dropped in this order: clients before servers.
    processes: Vec<Process>,
}

impl ControlPlane {
    /// Starts one and waits until it serves; about 4 s.
    pub(crate) fn start() -> Result<Self> {
        Self::start_at(&LOOPBACK)
    }

    /// The same where pods reach it, too: at an address that they have a way to.
    pub(crate) fn start_at(place: &Place) -> Result<Self> {
        let folder = run::subfolder("control-plane")?;
        let port = run::free_port()?;
        write_keys(&folder, place)?;
        fs::write(folder.join("audit-policy.yaml"), AUDIT_POLICY)?;
        let url = format!("https://{}:{port}", place.address);
        for (name, ..) in USERS {
            write_kubeconfig(&folder, name, &url, &token_of(name))?;
        }
        let admin = Kubectl::new(folder.join("admin.kubeconfig"));
        let client = Https::new(&folder.join("ca.crt"), Some(token_of("admin")))?;
        let server = SocketAddr::from((place.address, port));
        let mut plane = Self { folder, url, server, client, admin, apiserver: Vec::new(), processes: Vec::new() };
        let etcd = plane.start_etcd()?;
        plane.apiserver = plane.apiserver_arguments(place, port, &etcd);
        plane.start_part(APISERVER, &plane.apiserver.clone())?;
        plane.ready()?;
        plane.start_part("kube-controller-manager", &plane.controller_manager_arguments())?;
        plane.start_part("kube-scheduler", &plane.scheduler_arguments())?;
        plane.controllers_ready()?;
        Ok(plane)
    }

    /// Ends the API server as an upgrade of its node does it, starts it again, and waits until it serves.
    pub(crate) fn restart_apiserver(&mut self) -> Result<()> {
        let index = self.processes.iter().position(|process| process.name() == APISERVER).context("no API server")?;
        self.processes[index].stop(Duration::from_secs(90))?;
        self.processes[index] = self.part(APISERVER, &self.apiserver)?;
        self.ready()
    }

    /// Where the API server listens.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The CA of the API server (PEM).
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// The folder of its files and logs.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// kubectl as the administrator.
    pub(crate) fn admin(&self) -> &Kubectl {
        &self.admin
    }

    /// kubectl as one of the users in the table above: `ana` and `olga` are plain ones.
    pub(crate) fn user(&self, name: &str) -> Kubectl {
        Kubectl::new(self.folder.join(format!("{name}.kubeconfig")))
    }

    /// An object or a list by its path, as the administrator sees it; `None` when it is not there. For looking often:
    /// it takes a hundredth of kubectl's time.
    pub(crate) fn get(&self, path: &str) -> Result<Option<Value>> {
        self.reader().get(path)
    }

    /// The same for a thread of its own.
    pub(crate) fn reader(&self) -> Reader {
        Reader { server: self.server, client: self.client.clone() }
    }

    /// Sends an object as the administrator; the answer is the API server's, whatever it is.
    pub(crate) fn post(&self, path: &str, object: &str) -> Result<http::Answer> {
        self.client.send(self.server, path, Some(object))
    }

    /// A JSON merge patch as the administrator, also of a status (`…/status`); gives the object.
    pub(crate) fn patch(&self, path: &str, patch: &Value) -> Result<Value> {
        let kind = "application/merge-patch+json";
        done(path, &self.client.patch(self.server, path, kind, &patch.to_string())?)
    }

    /// Server-side apply as the administrator; gives the object.
    pub(crate) fn apply(&self, path: &str, object: &Value) -> Result<Value> {
        let (path, kind) = (format!("{path}?fieldManager=kubectl&force=true"), "application/apply-patch+yaml");
        done(&path, &self.client.patch(self.server, &path, kind, &object.to_string())?)
    }

    /// Deletes an object as the administrator.
    pub(crate) fn delete(&self, path: &str) -> Result<http::Answer> {
        self.client.delete(self.server, path)
    }

    /// A kubeconfig with a freshly minted token of a service account that exists.
    pub(crate) fn service_account(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let answer = self.admin.run(&["create", "token", name, "-n", namespace, "--duration", "24h"])?.success()?;
        write_kubeconfig(&self.folder, &format!("{namespace}.{name}"), &self.url, answer.stdout.trim())
    }

    /// What the audit log has of writes to a Deployment, oldest first. Whoever has an answer finds it here.
    pub(crate) fn audited(&self, namespace: &str, name: &str) -> Result<Vec<Value>> {
        let log = fs::read_to_string(self.folder.join(AUDIT))?;
        // The last line may be half written: of another request, whose answer is still to come.
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let object = |event: &Value| (event["objectRef"]["namespace"].clone(), event["objectRef"]["name"].clone());
        Ok(events.filter(|event| object(event) == (json!(namespace), json!(name))).collect())
    }

    /// The ends of all logs, for the message of a failed test.
    pub(crate) fn tails(&self) -> String {
        self.processes.iter().map(|process| process.tail(15)).collect()
    }

    fn start_part(&mut self, name: &str, arguments: &[String]) -> Result<()> {
        self.processes.insert(0, self.part(name, arguments)?);
        Ok(())
    }

    fn part(&self, name: &str, arguments: &[String]) -> Result<Process> {
        let mut command = Command::new(tools()?.path(name));
        command.args(arguments).current_dir(&self.folder);
        Process::start(name, &self.folder, command)
    }

    /// Starts etcd and gives the URL for clients.
    fn start_etcd(&mut self) -> Result<String> {
        let url = format!("http://127.0.0.1:{}", run::free_port()?);
        let peer = format!("http://127.0.0.1:{}", run::free_port()?);
        self.start_part(
            "etcd",
            &[
                format!("--data-dir={}", self.file("etcd")),
                format!("--listen-client-urls={url}"),
                format!("--advertise-client-urls={url}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=default={peer}"),
                // A machine that loses power loses the test as well.
                "--unsafe-no-fsync".to_owned(),
                "--log-level=warn".to_owned(),
            ],
        )?;
        Ok(url)
    }

    fn apiserver_arguments(&self, place: &Place, port: u16, etcd: &str) -> Vec<String> {
        let mut arguments = vec![
            format!("--etcd-servers={etcd}"),
            format!("--secure-port={port}"),
            format!("--bind-address={}", place.address),
            format!("--advertise-address={}", place.address),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--allow-privileged=true".to_owned(),
            format!("--tls-cert-file={}", self.file("apiserver.crt")),
            format!("--tls-private-key-file={}", self.file("apiserver.key")),
            format!("--token-auth-file={}", self.file("tokens.csv")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", self.file("service-account.pub")),
            format!("--service-account-signing-key-file={}", self.file("service-account.key")),
            format!("--service-cluster-ip-range={}/24", place.services),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            format!("--audit-policy-file={}", self.file("audit-policy.yaml")),
            format!("--audit-log-path={}", self.file(AUDIT)),
        ];
        // The Service `kubernetes` cannot lead to a loopback address.
        if place.address.is_loopback() {
            arguments.push("--endpoint-reconciler-type=none".to_owned());
        }
        arguments
    }

    fn controller_manager_arguments(&self) -> Vec<String> {
        vec![
            format!("--kubeconfig={}", self.file("controller-manager.kubeconfig")),
            "--use-service-account-credentials=true".to_owned(),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            // By default 20 requests a second, for all that many trials have it do.
            "--kube-api-qps=500".to_owned(),
            "--kube-api-burst=1000".to_owned(),
            // Nodes without a kubelet are as a trial says, however long it takes; by default they are lost after 50 s.
            "--node-monitor-grace-period=1h".to_owned(),
            // Made at start, by default below /usr.
            format!("--flex-volume-plugin-dir={}", self.file("volume-plugins")),
            format!("--service-account-private-key-file={}", self.file("service-account.key")),
            format!("--root-ca-file={}", self.file("ca.crt")),
        ]
    }

    fn scheduler_arguments(&self) -> Vec<String> {
        vec![
            format!("--kubeconfig={}", self.file("scheduler.kubeconfig")),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ]
    }

    fn ready(&mut self) -> Result<()> {
        self.wait("the API server", "/readyz")
    }

    /// The service account of a namespace is made by the controller manager; pods are refused until it is there.
    fn controllers_ready(&mut self) -> Result<()> {
        self.wait("the controller manager", "/api/v1/namespaces/default/serviceaccounts/default")
    }

    /// Until `path` answers 200, as long as every process runs.
    fn wait(&mut self, what: &str, path: &str) -> Result<()> {
        let waited = until(what, Duration::from_secs(90), || {
            self.processes.iter_mut().try_for_each(Process::check)?;
            Ok(match self.client.get(self.server, path) {
                Ok(answer) if answer.status == 200 => Look::Done(()),
                Ok(answer) => Look::Not(format!("{} {}", answer.status, answer.body)),
                Err(error) => Look::Not(format!("{error:#}")),
            })
        });
        waited.map_err(|error| anyhow!("{error:#}\n{}", self.tails()))
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

/// Asks as the administrator.
#[derive(Clone)]
pub(crate) struct Reader {
    server: SocketAddr,
    client: Https,
}

impl Reader {
    /// See [`ControlPlane::post`].
    pub(crate) fn post(&self, path: &str, object: &str) -> Result<http::Answer> {
        self.client.send(self.server, path, Some(object))
    }

    /// See [`ControlPlane::get`].
    pub(crate) fn get(&self, path: &str) -> Result<Option<Value>> {
        let answer = self.client.get(self.server, path)?;
        match answer.status {
            200 => Ok(Some(serde_json::from_str(&answer.body).with_context(|| format!("{path}: {}", answer.body))?)),
            404 => Ok(None),
            status => bail!("{path}: {status} {}", answer.body),
        }
    }
}

/// What the API server made of a write.
fn done(path: &str, answer: &http::Answer) -> Result<Value> {
    ensure!(matches!(answer.status, 200 | 201), "{path}: {} {}", answer.status, answer.body);
    Ok(serde_json::from_str(&answer.body)?)
}

/// A CA, the API server's pair, the key that signs service account tokens, and the users' tokens.
fn write_keys(folder: &Path, place: &Place) -> Result<()> {
    let ca_key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "bed CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key)?;
    let issuer = Issuer::new(params, ca_key);

    let key = KeyPair::generate()?;
    let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned);
    // The first address of the Services is that of `kubernetes`.
    let addresses =
        [place.address, Ipv4Addr::from_bits(place.services.to_bits() + 1)].map(|address| address.to_string());
    let certificate = CertificateParams::new([names.as_slice(), &addresses].concat())?.signed_by(&key, &issuer)?;

    fs::write(folder.join("ca.crt"), ca.pem())?;
    fs::write(folder.join("apiserver.crt"), certificate.pem())?;
    fs::write(folder.join("apiserver.key"), key.serialize_pem())?;
    let service_accounts = KeyPair::generate()?;
    fs::write(folder.join("service-account.key"), service_accounts.serialize_pem())?;
    fs::write(folder.join("service-account.pub"), service_accounts.public_key_pem())?;
    let tokens: String =
        USERS.iter().map(|(name, user, groups)| format!("{},{user},{name},\"{groups}\"\n", token_of(name))).collect();
    fs::write(folder.join("tokens.csv"), tokens).context("writing the users' tokens")
}

/// Not secret: the API server listens on the loopback interface and lives for a test.
fn token_of(name: &str) -> String {
    format!("bed-{name}")
}

fn write_kubeconfig(folder: &Path, name: &str, url: &str, token: &str) -> Result<PathBuf> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bed",
        "clusters": [{"name": "bed", "cluster": {"server": url, "certificate-authority": folder.join("ca.crt")}}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": name}}],
    });
    let path = folder.join(format!("{name}.kubeconfig"));
    fs::write(&path, serde_json::to_string_pretty(&config)?)?;
    Ok(path)
}
