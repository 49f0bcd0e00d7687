//! The pinned Kubernetes parts and Rego tools, built once into a cache.
//!
//! `tests/tools/*/go.mod` pin versions and checksums; the cache's folder is named after them, so that another pin is
//! another folder. A part appears in the cache under its name only when it is complete, and one run builds at a time.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// The version that the parts report; the one in `tests/tools/kubernetes/go.mod`.
pub(crate) const KUBERNETES: &str = "v1.35.4";

/// One part: what it is called, where it is pinned, and about how long its first build takes on two cores.
struct Part {
    name: &'static str,
    module: &'static str,
    package: &'static str,
    about: &'static str,
}

/// Parts that are built together, into one folder of the cache.
struct Group {
    /// As it is said to whoever waits.
    name: &'static str,
    /// How its folder begins.
    folder: &'static str,
    modules: &'static [&'static str],
    parts: &'static [Part],
}

const KUBERNETES_PARTS: Group = Group {
    name: "Kubernetes parts",
    folder: KUBERNETES,
    modules: &["etcd", "kubernetes"],
    parts: &[
        Part { name: "etcd", module: "etcd", package: "go.etcd.io/etcd/server/v3", about: "30 s" },
        Part {
            name: "kube-apiserver",
            module: "kubernetes",
            package: "k8s.io/kubernetes/cmd/kube-apiserver",
            about: "3 min",
        },
        Part {
            name: "kube-controller-manager",
            module: "kubernetes",
            package: "k8s.io/kubernetes/cmd/kube-controller-manager",
            about: "1 min",
        },
        Part {
            name: "kube-scheduler",
            module: "kubernetes",
            package: "k8s.io/kubernetes/cmd/kube-scheduler",
            about: "30 s",
        },
        Part { name: "kubectl", module: "kubernetes", package: "k8s.io/kubernetes/cmd/kubectl", about: "1 min" },
        Part { name: "kubelet", module: "kubernetes", package: "k8s.io/kubernetes/cmd/kubelet", about: "2 min" },
        Part { name: "kube-proxy", module: "kubernetes", package: "k8s.io/kubernetes/cmd/kube-proxy", about: "20 s" },
    ],
};

const REGO_TOOLS: Group = Group {
    name: "Rego tools",
    folder: "rego",
    modules: &["opa"],
    parts: &[
        Part { name: "opa", module: "opa", package: "github.com/open-policy-agent/opa", about: "90 s" },
        Part { name: "conftest", module: "opa", package: "github.com/open-policy-agent/conftest", about: "2 min" },
    ],
};

const HELM: Group = Group {
    name: "Helm",
    folder: "helm",
    modules: &["helm"],
    parts: &[Part { name: "helm", module: "helm", package: "helm.sh/helm/v4/cmd/helm", about: "90 s" }],
};

/// The one before, which many still have.
const HELM_3: Group = Group {
    name: "Helm 3",
    folder: "helm-3",
    modules: &["helm-3"],
    parts: &[Part { name: "helm", module: "helm-3", package: "helm.sh/helm/v3/cmd/helm", about: "90 s" }],
};

const KWOK: Group = Group {
    name: "simulated nodes",
    folder: "kwok",
    modules: &["kwok"],
    parts: &[Part { name: "kwok", module: "kwok", package: "sigs.k8s.io/kwok/cmd/kwok", about: "90 s" }],
};

/// Where the built parts are.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    /// `KUBEBUILDER_ASSETS`: what is in there is used, the rest is built.
    given: Option<PathBuf>,
    cache: PathBuf,
}

/// What a cluster is made of, built on first use.
pub(crate) fn tools() -> Result<&'static Tools> {
    static TOOLS: OnceLock<Result<Tools, String>> = OnceLock::new();
    let given = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    once(&TOOLS, &KUBERNETES_PARTS, given)
}

/// `opa` and `conftest`, built on first use.
pub(crate) fn rego_tools() -> Result<&'static Tools> {
    static TOOLS: OnceLock<Result<Tools, String>> = OnceLock::new();
    once(&TOOLS, &REGO_TOOLS, None)
}

/// `helm`, built on first use.
pub(crate) fn helm() -> Result<PathBuf> {
    static TOOLS: OnceLock<Result<Tools, String>> = OnceLock::new();
    Ok(once(&TOOLS, &HELM, None)?.path("helm"))
}

/// `helm` of version 3, built on first use.
pub(crate) fn helm_3() -> Result<PathBuf> {
    static TOOLS: OnceLock<Result<Tools, String>> = OnceLock::new();
    Ok(once(&TOOLS, &HELM_3, None)?.path("helm"))
}

/// `kwok`, built on first use.
pub(crate) fn kwok() -> Result<PathBuf> {
    static TOOLS: OnceLock<Result<Tools, String>> = OnceLock::new();
    Ok(once(&TOOLS, &KWOK, None)?.path("kwok"))
}

/// The folder of stages that comes with it, in its module's sources.
pub(crate) fn kwok_stages() -> Result<PathBuf> {
    let mut command = Command::new("go");
    command.current_dir(module("kwok")).args(["list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"]).env("GOWORK", "off");
    let output = command.env_remove("GOFLAGS").output().context("running `go list`")?;
    let folder = String::from_utf8(output.stdout)?;
    anyhow::ensure!(output.status.success(), "go list: {}", String::from_utf8_lossy(&output.stderr));
    Ok(Path::new(folder.trim()).join("kustomize/stage"))
}

fn once(
    cell: &'static OnceLock<Result<Tools, String>>,
    group: &Group,
    given: Option<PathBuf>,
) -> Result<&'static Tools> {
    let tools = cell.get_or_init(|| Tools::ready(group, given).map_err(|error| format!("{error:#}")));
    tools.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
}

impl Tools {
    fn ready(group: &Group, given: Option<PathBuf>) -> Result<Self> {
        let tools = Self { given, cache: cache()?.join(key(group)?) };
        tools.build_missing(group)?;
        Ok(tools)
    }

    /// The program of a part.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.given
            .as_ref()
            .map(|given| given.join(name))
            .filter(|path| path.is_file())
            .unwrap_or_else(|| self.cache.join(name))
    }

    fn build_missing(&self, group: &Group) -> Result<()> {
        let missing = |part: &Part| !self.path(part.name).is_file();
        if !group.parts.iter().any(missing) {
            return Ok(());
        }
        fs::create_dir_all(&self.cache).with_context(|| format!("making {}", self.cache.display()))?;
        let lock = File::create(self.cache.join("lock"))?;
        if lock.try_lock().is_err() {
            eprintln!("another run is building the {}; waiting for it", group.name);
            lock.lock()?;
        }
        for (index, part) in group.parts.iter().enumerate().filter(|(_, part)| missing(part)) {
            eprintln!("[{}/{}] {} (once, about {})", index + 1, group.parts.len(), part.name, part.about);
            build(part, &self.cache)?;
        }
        Ok(())
    }
}

fn build(part: &Part, cache: &Path) -> Result<()> {
    // Renamed when complete: a build that is interrupted leaves nothing that looks like a program.
    let unfinished = cache.join(format!(".{}", part.name));
    let output = Command::new("go")
        .current_dir(module(part.module))
        .args(["build", "-trimpath", "-ldflags", &ldflags(), "-o"])
        .arg(&unfinished)
        .arg(part.package)
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .env_remove("GOFLAGS")
        .stdin(Stdio::null())
        .output()
        .context("running `go build`; install Go 1.26 or newer (https://go.dev/dl)")?;
    if !output.status.success() {
        bail!("building {} failed:\n{}", part.name, String::from_utf8_lossy(&output.stderr));
    }
    fs::rename(&unfinished, cache.join(part.name)).with_context(|| format!("putting {} into the cache", part.name))
}

/// Without these the server calls itself v0.0.0-master, which breaks the version checks of clients.
fn ldflags() -> String {
    let mut flags = String::from("-s -w");
    let numbers: Vec<&str> = KUBERNETES.trim_start_matches('v').split('.').collect();
    for (name, value) in [("gitVersion", KUBERNETES), ("gitMajor", numbers[0]), ("gitMinor", numbers[1])] {
        for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
            flags.push_str(&format!(" -X {package}.{name}={value}"));
        }
    }
    flags
}

fn module(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools").join(name)
}

/// What decides a build: the pins and the flags.
fn key(group: &Group) -> Result<String> {
    let mut hash = Sha256::new();
    for name in group.modules {
        for file in ["go.mod", "go.sum"] {
            let path = module(name).join(file);
            hash.update(fs::read(&path).with_context(|| format!("reading {}", path.display()))?);
        }
    }
    hash.update(ldflags());
    let hash: String = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}-{}-{hash}", group.folder, env::consts::ARCH))
}

/// `${XDG_CACHE_HOME:-~/.cache}/surefoot`.
pub(crate) fn cache() -> Result<PathBuf> {
    let named = |name: &str| env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
    let base = named("XDG_CACHE_HOME").or_else(|| named("HOME").map(|home| home.join(".cache")));
    Ok(base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("surefoot"))
}
