//! A real node: kubelet, containerd, runc and a CNI bridge, where this runs as root on Linux.
//!
//! containerd and the kubelet live in process and mount namespaces of their own. That is what makes the end certain:
//! when the first process of a process namespace is killed, the kernel kills all others in it, containers and their
//! shims included, and every mount goes with the last of them. Two things remain outside, the bridge and the control
//! groups; the run's janitor removes them.

use std::{
    fmt, fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;

use super::{
    control_plane::{ControlPlane, NODE, Place},
    image,
    run::{self, Leftover, Process},
    tools::tools,
    watch::{Look, until},
};

/// What runs inside the namespaces: `$1` is the node's folder, `$2` the kubelet, then its arguments. Own `/run`,
/// `/var/lib` and `/var/log`, because containerd, its shims, CNI and the kubelet have paths there that cannot be
/// configured; the kubelet is opened before, in case the cache is below one of them.
const INSIDE: &str = r#"
set -e
exec 3<"$2"
for folder in /run /var/lib /var/log; do mount -t tmpfs tmpfs $folder; done
mkdir -p /run/netns /run/containerd
containerd --config "$1/containerd.toml" >>"$1/containerd.log" 2>&1 &
until ctr --address "$1/containerd.sock" version >/dev/null 2>&1; do kill -0 $!; sleep 0.1; done
for images in "$1"/*.tar; do
    ctr --address "$1/containerd.sock" --namespace k8s.io images import --snapshotter native "$images" >>"$1/containerd.log" 2>&1
done
folder=$1; shift 2
/proc/self/fd/3 --config="$folder/kubelet.yaml" --root-dir="$folder/kubelet" --cert-dir="$folder/kubelet/pki" "$@" >>"$folder/kubelet.log" 2>&1 &
wait
"#;

/// Below the node's folder: a folder for each container.
const CONTAINERS: &str = "containerd/state/io.containerd.runtime.v2.task/k8s.io";

/// Port of the kubelet, on the bridge's address.
const KUBELET: u16 = 10250;

/// What this machine lacks for a node, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unavailable {
    pub(crate) what: String,
    pub(crate) remedy: String,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "needs {} ({})", self.what, self.remedy)
    }
}

/// Programs that a node needs, and the Debian package of each.
const NEEDED: [(&str, &str); 8] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("unshare", "util-linux"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("/usr/lib/cni/host-local", "containernetworking-plugins"),
];

/// A running node; it ends when it is dropped, or with the run.
pub(crate) struct Node {
    folder: PathBuf,
    network: Network,
    kubeconfig: PathBuf,
    // The first process of the namespaces: all that runs in them ends with it.
    process: Process,
}

impl Node {
    /// Whether a node can run here.
    pub(crate) fn available() -> Result<(), Unavailable> {
        if !cfg!(target_os = "linux") {
            return Err(Unavailable { what: "Linux".to_owned(), remedy: "run it in a virtual machine".to_owned() });
        }
        let mut packages: Vec<&str> =
            NEEDED.into_iter().filter(|(program, _)| !installed(program)).map(|(_, package)| package).collect();
        packages.dedup();
        if !packages.is_empty() {
            let packages = packages.join(" ");
            return Err(Unavailable {
                what: packages.clone(),
                remedy: format!("apt-get install --no-install-recommends {packages}"),
            });
        }
        if !rustix::process::geteuid().is_root() {
            return Err(Unavailable { what: "root".to_owned(), remedy: "run it with sudo".to_owned() });
        }
        if !capable() {
            let what = "the capabilities CAP_SYS_ADMIN and CAP_NET_ADMIN".to_owned();
            return Err(Unavailable { what, remedy: "run it on a machine or in a privileged container".to_owned() });
        }
        Ok(())
    }

    /// Starts one, joined to `plane`, and waits until it is Ready; about 10 s.
    pub(crate) fn start(plane: &ControlPlane) -> Result<Self> {
        Self::start_on(plane, Network::make()?, None)
    }

    /// The same on a network that is there, with another archive of images.
    pub(crate) fn start_on(plane: &ControlPlane, network: Network, images: Option<&[u8]>) -> Result<Self> {
        let folder = run::subfolder("node")?;
        if let Some(images) = images {
            fs::write(folder.join("more.tar"), images)?;
        }
        fs::create_dir_all(folder.join("cni"))?;
        fs::create_dir_all(folder.join("kubelet"))?;
        image::write_archive(&folder.join("images.tar"))?;
        fs::write(folder.join("containerd.toml"), containerd_config(&folder))?;
        fs::write(folder.join("cni/10-bed.conflist"), cni_config(&folder, &network)?)?;
        fs::write(folder.join("kubelet.yaml"), kubelet_config(&folder, &network)?)?;
        run::note(&Leftover::Containers(folder.join(CONTAINERS)))?;

        let kubeconfig = plane.user("node").kubeconfig().to_owned();
        let process = Self::run(&folder, &network, &kubeconfig)?;
        let mut node = Self { folder, network, kubeconfig, process };
        node.ready(plane).map_err(|error| anyhow!("{error:#}\n{}", node.tails()))?;
        Ok(node)
    }

    fn run(folder: &Path, network: &Network, kubeconfig: &Path) -> Result<Process> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "sh", "-c", INSIDE, "node"]);
        command.arg(folder).arg(tools()?.path("kubelet"));
        command.arg(format!("--kubeconfig={}", kubeconfig.display()));
        command.args([format!("--hostname-override={NODE}"), format!("--node-ip={}", network.gateway())]);
        Process::start("node", folder, command)
    }

    /// Takes the power from it, with everything that runs on it, and gives it back. What was on its disk is there again.
    /// The API server goes on taking it for Ready.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.process.kill()?;
        // The kernel ends the rest in its own time.
        let kubelet = SocketAddr::from((self.network.gateway(), KUBELET));
        until("the kubelet to be gone", Duration::from_secs(30), || {
            Ok(if TcpStream::connect(kubelet).is_err() { Look::Done(()) } else { Look::Not("it answers".to_owned()) })
        })?;
        until("the control groups of its containers to be gone", Duration::from_secs(30), || {
            let are_gone = run::remove_control_groups(&self.folder.join(CONTAINERS));
            Ok(if are_gone { Look::Done(()) } else { Look::Not("some are left".to_owned()) })
        })?;
        self.process = Self::run(&self.folder, &self.network, &self.kubeconfig)?;
        Ok(())
    }

    /// The bridge that its pods are on.
    pub(crate) fn bridge(&self) -> &str {
        &self.network.bridge
    }

    /// The ends of its logs.
    pub(crate) fn tails(&self) -> String {
        ["node", "containerd", "kubelet"]
            .map(|name| {
                let log = fs::read_to_string(self.folder.join(name).with_extension("log")).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(15)..].join("\n"))
            })
            .concat()
    }

    fn ready(&mut self, plane: &ControlPlane) -> Result<()> {
        until("the node to be Ready", Duration::from_secs(90), || {
            self.process.check()?;
            let node = plane.get(&format!("/api/v1/nodes/{NODE}"))?.unwrap_or_default();
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
            // Pods are not scheduled before the taint is gone.
            let tainted = node["spec"]["taints"].as_array().is_some_and(|taints| !taints.is_empty());
            Ok(if ready && !tainted { Look::Done(()) } else { Look::Not(format!("{conditions:?}")) })
        })
    }
}

/// Own subnet and bridge for each node, so that several can stand side by side.
pub(crate) struct Network {
    bridge: String,
    number: u8,
}

impl Network {
    /// Takes the first free number: making a bridge fails when its name is taken, which is all the locking it needs.
    pub(crate) fn make() -> Result<Self> {
        let first = u8::try_from(process::id() % 256)?;
        for step in 0..=255_u8 {
            let number = first.wrapping_add(step);
            let network = Self { bridge: format!("surefoot{number}"), number };
            if !Path::new("/sys/class/net").join(&network.bridge).exists() {
                run::note(&Leftover::Bridge(network.bridge.clone()))?;
                ip(&["link", "add", &network.bridge, "type", "bridge"])?;
                ip(&["address", "add", &format!("{}/24", network.gateway()), "dev", &network.bridge])?;
                ip(&["link", "set", &network.bridge, "up"])?;
                return Ok(network);
            }
        }
        bail!("all of the bridges surefoot0 to surefoot255 are taken; remove those of ended runs: ip link delete NAME")
    }

    /// 198.18.0.0/15 is set aside for measuring and is routed nowhere.
    fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 1)
    }

    /// Where a control plane can be reached from this network's pods; its Services have addresses of their own, too.
    pub(crate) fn place(&self) -> Place {
        Place { address: self.gateway(), services: Ipv4Addr::new(198, 19, self.number, 0) }
    }

    fn subnet(&self) -> String {
        format!("{}/24", Ipv4Addr::new(198, 18, self.number, 0))
    }
}

fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(args).stdin(Stdio::null()).output().context("running `ip`")?;
    if !output.status.success() {
        bail!("`ip {}` failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Root in a container is often root by name only.
fn capable() -> bool {
    const NET_ADMIN: u64 = 1 << 12;
    const SYS_ADMIN: u64 = 1 << 21;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or_default();
    effective & NET_ADMIN != 0 && effective & SYS_ADMIN != 0
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Path::new(program).is_file() || std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn containerd_config(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"version = 2
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without CAP_SYS_RESOURCE runc fails with "can't get final child's PID from pipe: EOF" otherwise.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
"#,
        pause = image::PAUSE,
    )
}

fn cni_config(folder: &Path, network: &Network) -> Result<String> {
    let config = json!({
        "cniVersion": "0.4.0",
        "name": "bed",
        "plugins": [{
            "type": "bridge",
            "bridge": network.bridge,
            "isGateway": true,
            "ipMasq": false,
            "ipam": {"type": "host-local", "dataDir": folder.join("cni-data"), "ranges": [[{"subnet": network.subnet(), "gateway": network.gateway()}]],
                // To Services; nothing else answers there.
                "routes": [{"dst": "0.0.0.0/0"}]},
        }],
    });
    Ok(serde_json::to_string_pretty(&config)?)
}

/// Works where cgroup v1 is mounted and capabilities are missing.
fn kubelet_config(folder: &Path, network: &Network) -> Result<String> {
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", folder.join("containerd.sock").display()),
        "address": network.gateway(),
        "port": KUBELET,
        "healthzPort": 0,
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
        "resolvConf": "/dev/null",
        "volumePluginDir": folder.join("volume-plugins"),
        "podLogsDir": folder.join("pods"),
        "registerNode": true,
        // A changed Secret comes to its pods within seconds.
        "syncFrequency": "2s",
        // Many scenarios at once, on one node.
        "maxPods": 200,
        "nodeStatusUpdateFrequency": "2s",
        "serializeImagePulls": false,
        // Its rules would outlive it.
        "makeIPTablesUtilChains": false,
        "shutdownGracePeriod": "0s",
    });
    Ok(serde_json::to_string_pretty(&config)?)
}
