//! The cluster, surefoot in it, and a shell in which commands are typed.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    support::{ControlPlane, Node, Surefoot, control_plane::NODE, kubectl::capture, tools},
    traffic::Traffic,
};

/// Where the model lives; its label says `enforce`.
pub(crate) const NAMESPACE: &str = "shop";

/// What the acts play on.
pub(crate) struct Stage {
    pub(crate) plane: ControlPlane,
    pub(crate) surefoot: Surefoot,
    /// The clients, from the moment when there is a model to ask.
    pub(crate) traffic: Option<Traffic>,
    /// What the table at the end shows.
    pub(crate) figures: Vec<(String, String)>,
    /// None without root.
    node: Option<Node>,
}

/// What a typed command printed, errors included, and how long it took.
pub(crate) struct Typed {
    pub(crate) ok: bool,
    pub(crate) text: String,
}

impl Typed {
    /// Checks an expectation: it went through, and said this.
    pub(crate) fn passes(self, saying: &str) -> Result<Self> {
        ensure!(self.ok, "this should have gone through");
        self.saying(saying)
    }

    /// Checks an expectation: it was refused, and said this.
    pub(crate) fn refused(self, saying: &str) -> Result<Self> {
        ensure!(!self.ok, "this should have been refused");
        self.saying(saying)
    }

    fn saying(self, saying: &str) -> Result<Self> {
        ensure!(self.text.contains(saying), "expected to read `{saying}`");
        Ok(self)
    }
}

impl Stage {
    /// Builds what is missing, starts everything.
    pub(crate) fn set() -> Result<Self> {
        let available = Node::available();
        match &available {
            Ok(()) => println!("A real cluster is being started on this machine; nothing of it is left afterwards."),
            Err(lack) => println!("There is no node here, it {lack}: the acts in which probes fail are left out."),
        }
        tools::tools()?;
        let plane = ControlPlane::start()?;
        let node = available.ok().map(|()| Node::start(&plane)).transpose()?;
        let config = include_str!("config.yaml");
        let mut surefoot = Surefoot::install(&plane, &program()?, config)?;
        surefoot.start_webhook()?;
        surefoot.start_controller()?;
        let mut stage = Self { plane, surefoot, traffic: None, figures: Vec::new(), node };
        stage.people()?;
        Ok(stage)
    }

    /// Whether containers run here.
    pub(crate) fn has_node(&self) -> bool {
        self.node.is_some()
    }

    /// Types a command: echoes it, runs it in a shell, shows what it prints as it is.
    pub(crate) fn types(&self, command: &str) -> Result<Typed> {
        println!("$ {command}");
        let typed = self.runs(command)?;
        println!("{}\n", typed.text.trim_end());
        Ok(typed)
    }

    /// The same without showing it.
    pub(crate) fn runs(&self, command: &str) -> Result<Typed> {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec 2>&1\n{command}")]);
        shell.current_dir(env!("CARGO_MANIFEST_DIR")).env("PATH", path()?);
        shell.env("KUBECONFIG", self.plane.user("ana").kubeconfig());
        let answer = capture(shell, command, "")?;
        Ok(Typed { ok: answer.ok(), text: answer.stdout })
    }

    /// Notes a line of the table at the end.
    pub(crate) fn figure(&mut self, what: &str, value: impl Into<String>) {
        self.figures.push((what.to_owned(), value.into()));
    }

    /// How long the API server takes to answer a request that the webhook refuses, kubectl's own time left out: the
    /// median of some.
    pub(crate) fn time_to_answer(&self, manifest: &str, path: &str) -> Result<Duration> {
        let mut times = Vec::new();
        for _ in 0..21 {
            let start = Instant::now();
            let answer = self.plane.post(path, manifest)?;
            times.push(start.elapsed());
            ensure!(answer.status == 403, "{} {}", answer.status, answer.body);
        }
        times.sort();
        Ok(times[times.len() / 2])
    }

    /// The ends of all logs, for when something went wrong.
    pub(crate) fn tails(&self) -> String {
        format!("{}{}", self.node.as_ref().map(Node::tails).unwrap_or_default(), self.surefoot.tails())
    }

    /// `KEEP=1`: stays up until Ctrl-C.
    pub(crate) fn keep_if_asked(&self) {
        if env::var_os("KEEP").is_none_or(|keep| keep.is_empty() || keep == "0") {
            return;
        }
        println!("\nIt stays up until Ctrl-C. In another terminal:\n");
        println!("export KUBECONFIG={}", self.plane.admin().kubeconfig().display());
        println!("export PATH={}", path().unwrap_or_default().to_string_lossy());
        loop {
            std::thread::park();
        }
    }

    /// A namespace under guard, one that is not, and ana, a developer with the rights of one and no more.
    fn people(&mut self) -> Result<()> {
        self.plane.admin().apply(include_str!("shop/namespaces.yaml")).map(drop)
    }
}

/// What the cluster is made of.
pub(crate) fn versions(plane: &ControlPlane) -> Result<String> {
    let server = plane.get("/version")?.unwrap_or_default();
    let server = server["gitVersion"].as_str().unwrap_or_default().to_owned();
    let Some(node) = plane.get(&format!("/api/v1/nodes/{NODE}"))? else {
        return Ok(format!("kube-apiserver {server}, no node"));
    };
    let info = &node["status"]["nodeInfo"];
    let runtime = info["containerRuntimeVersion"].as_str().unwrap_or_default().replace("://", " ");
    let kubelet = info["kubeletVersion"].as_str().unwrap_or_default();
    Ok(format!("kube-apiserver {server}, kubelet {kubelet}, {runtime}"))
}

/// The binary beside this example's folder.
fn program() -> Result<PathBuf> {
    let here = env::current_exe()?;
    let program = here.parent().and_then(Path::parent).map(|folder| folder.join("surefoot"));
    program.filter(|program| program.is_file()).context("surefoot is not built: cargo build")
}

/// kubectl and surefoot first.
fn path() -> Result<OsString> {
    let kubectl = tools::tools()?.path("kubectl");
    let folders = [kubectl.parent().map(Path::to_owned), program()?.parent().map(Path::to_owned)];
    let rest = env::var_os("PATH").unwrap_or_default();
    Ok(env::join_paths(folders.into_iter().flatten().chain(env::split_paths(&rest)))?)
}
