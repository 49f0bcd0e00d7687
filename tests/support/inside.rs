//! A cluster in which surefoot itself runs: its image on the node, its pods with a way to the API server, and kube-proxy,
//! so that the API server reaches it by its Service. One at a time on a machine: kube-proxy's rules are the host's.

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};

use super::{
    control_plane::{ControlPlane, NODE},
    node::{Network, Node},
    run::{self, Leftover, Process},
    surefoot_image,
    tools::tools,
    watch::{Look, until},
};

/// A running one; it ends when it is dropped, or with the run. Fields are dropped in this order.
pub(crate) struct Inside {
    _proxy: Process,
    pub(crate) node: Node,
    pub(crate) plane: ControlPlane,
    _only: File,
}

impl Inside {
    /// Starts one and waits until its Service `kubernetes` answers; about 15 s, once the image is there. Installs nothing.
    pub(crate) fn start() -> Result<Self> {
        Self::start_with(Some(&Self::image()?))
    }

    /// The same with another image of surefoot, or with none.
    pub(crate) fn start_with(image: Option<&[u8]>) -> Result<Self> {
        let only = File::create(env::temp_dir().join("surefoot-kube-proxy.lock"))?;
        only.lock()?;
        let network = Network::make()?;
        let place = network.place();
        let plane = ControlPlane::start_at(&place)?;
        let node = Node::start_on(&plane, network, image)?;
        let mut proxy = start_proxy(&plane)?;
        until("kube-proxy's rules", Duration::from_secs(30), || {
            proxy.check()?;
            let rules = Command::new("iptables").args(["-t", "nat", "-S", "KUBE-SERVICES"]).output()?;
            let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
            Ok(if rules.contains("default/kubernetes") { Look::Done(()) } else { Look::Not(rules) })
        })
        .map_err(|error| anyhow!("{error:#}\n{}", proxy.tail(15)))?;
        Ok(Self { _proxy: proxy, node, plane, _only: only })
    }

    /// The archive of surefoot's image: the one that `SUREFOOT_IMAGE` names (`make image` makes it), or one of a program that
    /// is built here without optimisation, in about 3 minutes the first time.
    pub(crate) fn image() -> Result<Vec<u8>> {
        if let Some(file) = env::var_os("SUREFOOT_IMAGE").map(PathBuf::from) {
            return fs::read(&file).with_context(|| format!("reading {}", file.display()));
        }
        let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
        let top = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(top).args(["rustc", "--locked", "--quiet", "--bin", "surefoot", "--target", &target]);
        command.args(["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"]);
        let built = command.output().context("running cargo")?;
        ensure!(
            built.status.success(),
            "building a static surefoot failed:\n{}",
            String::from_utf8_lossy(&built.stderr)
        );
        let folder = env::var_os("CARGO_TARGET_DIR").map_or_else(|| top.join("target"), PathBuf::from);
        let program = folder.join(target).join("debug/surefoot");
        surefoot_image::archive(&fs::read(&program).with_context(|| format!("reading {}", program.display()))?)
    }
}

fn start_proxy(plane: &ControlPlane) -> Result<Process> {
    let folder = run::subfolder("kube-proxy")?;
    let program = tools()?.path("kube-proxy");
    let config = folder.join("config.yaml");
    fs::write(
        &config,
        format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {{kubeconfig: {kubeconfig}}}
hostnameOverride: {NODE}
mode: iptables
iptables: {{masqueradeAll: true, minSyncPeriod: 100ms}}
# What a container may not change.
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
nodePortAddresses: [127.0.0.0/8]
healthzBindAddress: 127.0.0.1:{healthz}
metricsBindAddress: 127.0.0.1:{metrics}
",
            kubeconfig = plane.user("proxy").kubeconfig().display(),
            healthz = run::free_port()?,
            metrics = run::free_port()?,
        ),
    )?;
    run::note(&Leftover::Services(program.clone()))?;
    let mut command = Command::new(program);
    command.arg(format!("--config={}", config.display()));
    Process::start("kube-proxy", &folder, command)
}
