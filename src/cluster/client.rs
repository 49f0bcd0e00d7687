//! A client for the cluster, and its errors as sentences that name the file, the right or the address.
//!
//! The order is kubectl's: `--kubeconfig`, `$KUBECONFIG`, `~/.kube/config`, the service account of the pod.

use std::{
    env,
    error::Error as StdError,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper::header::{HeaderValue, USER_AGENT};
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use tower::{BoxError, util::MapErrLayer};

use super::patience::patient;
use crate::config::yaml::{self, Wrong};

/// Seconds after which the API server ends a watch and the client begins the next: bounds how long a connection that
/// died in silence goes unnoticed.
pub(crate) const WATCH_SECONDS: u32 = 120;

/// Makes ring the provider of all TLS in this process. Harmless when called again.
pub fn install_crypto() {
    // An error means that a provider is there already, and the only one compiled in is ring.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client for the cluster that `kubeconfig`, `context`, the environment or the pod's service account name. Its
/// `default_namespace()` is the context's. Nothing is sent yet: a server that is away shows at the first request.
pub async fn connect(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Client, ConnectError> {
    install_crypto();
    let mut config = match locate(kubeconfig)? {
        Some(files) => from_files(&files, context).await?,
        None => Config::incluster().map_err(|error| ConnectError::InCluster(chain(&error)))?,
    };
    config.headers.push((USER_AGENT, HeaderValue::from_static(concat!("surefoot/", env!("CARGO_PKG_VERSION")))));
    config.connect_timeout = Some(Duration::from_secs(5));
    // Longer than a watch, so that it ends only connections that are dead.
    config.read_timeout = Some(Duration::from_secs(u64::from(WATCH_SECONDS) + 30));
    config.reset_reader_on_write = true;
    config.default_retry = false;
    let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let builder = ClientBuilder::try_from(config).map_err(|error| ConnectError::Credentials(chain(&error)))?;
    let named = MapErrLayer::new(move |source: BoxError| Unreachable { server: server.clone(), source });
    Ok(patient(builder.with_layer(&named).build()))
}

/// The kubeconfig files to merge; `None`: the pod's service account.
fn locate(flag: Option<&Path>) -> Result<Option<Vec<PathBuf>>, ConnectError> {
    if let Some(file) = flag {
        return Ok(Some(vec![file.to_owned()]));
    }
    let listed: Vec<_> = env::split_paths(&env::var_os("KUBECONFIG").unwrap_or_default())
        .filter(|p| !p.as_os_str().is_empty())
        .collect();
    if !listed.is_empty() {
        return Ok(Some(listed));
    }
    let home = env::home_dir().map(|home| home.join(".kube/config"));
    match home {
        Some(file) if file.exists() => Ok(Some(vec![file])),
        _ if env::var_os("KUBERNETES_SERVICE_HOST").is_some() => Ok(None),
        home => Err(ConnectError::NoKubeconfig(
            home.map_or_else(|| "~/.kube/config".to_owned(), |file| file.display().to_string()),
        )),
    }
}

/// Reads and merges `files` as kubectl does: with several, those that do not exist are passed over.
async fn from_files(files: &[PathBuf], context: Option<&str>) -> Result<Config, ConnectError> {
    let mut merged = Kubeconfig::default();
    let mut read = 0;
    for file in files {
        if files.len() > 1 && !file.exists() {
            continue;
        }
        let one = Kubeconfig::read_from(file).and_then(|one| merged.clone().merge(one));
        merged = one.map_err(|error| match error {
            KubeconfigError::ReadConfig(error, file) => ConnectError::Unreadable { file, error: error.to_string() },
            other => malformed(file, &other),
        })?;
        read += 1;
    }
    let shown = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    if read == 0 {
        return Err(ConnectError::NoKubeconfig(shown));
    }
    let contexts = merged.contexts.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(merged, &options).await.map_err(|error| match error {
        KubeconfigError::LoadContext(context) => ConnectError::NoSuchContext { files: shown, context, contexts },
        KubeconfigError::CurrentContextNotSet => ConnectError::NoContext { files: shown, contexts },
        other => ConnectError::Malformed { file: shown.into(), error: first_line(&chain(&other)) },
    })
}

/// Our parser's words, with place and remedy, where it finds fault as well; kube's name options of the library that it reads with.
fn malformed(file: &Path, error: &KubeconfigError) -> ConnectError {
    let ours = std::fs::read_to_string(file).ok().and_then(|text| yaml::parse(&text).err());
    let error = match ours {
        Some(Wrong { at, message }) => format!("line {} column {}: {message}", at.line, at.column),
        None => first_line(&chain(error)).replace("failed to parse kubeconfig YAML: error: ", ""),
    };
    ConnectError::Malformed { file: file.to_owned(), error }
}

/// Why there is no client. Each is the user's to mend, and says where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Neither flag, environment nor home directory name a file, and this is no pod.
    #[error("no kubeconfig: {0} does not exist; give --kubeconfig FILE or set KUBECONFIG")]
    NoKubeconfig(String),
    /// The file cannot be read.
    #[error("kubeconfig {file} cannot be read: {error}", file = .file.display())]
    Unreadable {
        /// As given.
        file: PathBuf,
        /// From the system.
        error: String,
    },
    /// The file is no kubeconfig, or what it points to is not there.
    #[error("kubeconfig {file} cannot be used: {error}", file = .file.display())]
    Malformed {
        /// As given.
        file: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// `--context`, or the file's current context, names nothing.
    #[error("kubeconfig {files} has no context `{context}`; it has: {contexts}")]
    NoSuchContext {
        /// As given.
        files: String,
        /// The one asked for.
        context: String,
        /// Those that exist.
        contexts: String,
    },
    /// No current context.
    #[error("kubeconfig {files} has no current context; {}", match contexts.as_str() {
        "" => "it has no contexts at all, so it names no cluster".to_owned(),
        contexts => format!("give --context, one of: {contexts}"),
    })]
    NoContext {
        /// As given.
        files: String,
        /// Those that exist.
        contexts: String,
    },
    /// Certificates, keys or tokens that do not load.
    #[error("the credentials of the kubeconfig cannot be used: {0}")]
    Credentials(String),
    /// In a pod without a usable service account.
    #[error("the pod's service account cannot be used: {0}; is automountServiceAccountToken off?")]
    InCluster(String),
}

/// No answer from the API server. Put around every transport error by [`connect`], because kube's own do not say which
/// server it was.
#[derive(Debug, thiserror::Error)]
#[error("the API server at {server} cannot be reached: {}", innermost(.source.as_ref()))]
struct Unreachable {
    server: String,
    source: BoxError,
}

/// What was being tried, for the sentence about why it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    verb: &'static str,
    resource: String,
    namespace: Option<String>,
    name: Option<String>,
}

impl Attempt {
    /// `verb` as in RBAC (`get`, `list`, `watch`, …), `resource` in the plural.
    pub fn new(verb: &'static str, resource: &str) -> Self {
        Self { verb, resource: resource.to_owned(), namespace: None, name: None }
    }

    /// In this namespace.
    #[must_use]
    pub fn within(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// This object.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// The sentence for a person: which right is missing, what was not found, which address did not answer.
    pub fn explain(&self, error: &kube::Error) -> String {
        match error {
            kube::Error::Api(status) => self.refused(status.code, &status.message),
            kube::Error::Auth(error) => format!("the credentials of the kubeconfig cannot be used: {}", chain(error)),
            kube::Error::Service(error) if error.is::<Unreachable>() => error.to_string(),
            other => format!("cannot {self}: {}", chain(other)),
        }
    }

    pub(super) fn refused(&self, code: u16, message: &str) -> String {
        match code {
            401 => "the API server does not accept the credentials (401 Unauthorized)".to_owned(),
            403 => match user_of(message) {
                Some(user) => format!("no right to {self}: {user} lacks it"),
                None => format!("no right to {self}: {message}"),
            },
            404 if message.starts_with("namespaces ") => match &self.namespace {
                Some(namespace) => format!("namespace {namespace} does not exist"),
                None => format!("namespace {} does not exist", self.name.as_deref().unwrap_or_default()),
            },
            404 => match &self.namespace {
                Some(namespace) => format!("{} not found in namespace {namespace}", self.object()),
                None => format!("{} not found", self.object()),
            },
            _ => format!("cannot {self}: {message}"),
        }
    }

    fn object(&self) -> String {
        match &self.name {
            Some(name) => format!("{}/{name}", self.resource),
            None => self.resource.clone(),
        }
    }
}

impl std::fmt::Display for Attempt {
    /// `list deployments in namespace shop`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => Ok(()),
        }
    }
}

/// `… is forbidden: User "ana" cannot list …` → `User "ana"`.
fn user_of(message: &str) -> Option<&str> {
    let (_, after) = message.split_once("is forbidden: ")?;
    let (user, _) = after.split_once(" cannot ")?;
    Some(user)
}

/// The error and its causes, each once.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// The cause beneath all others: `Connection refused (os error 111)` rather than `client error (Connect)`.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const KUBECONFIG: &str = r#"
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {}}]
contexts: [{name: here, context: {cluster: c, user: u, namespace: shop}}, {name: bare, context: {cluster: c, user: u}}]
"#;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[tokio::test]
    async fn the_context_gives_the_namespace() {
        let file = file(KUBECONFIG);
        for (context, namespace) in [(None, "shop"), (Some("here"), "shop"), (Some("bare"), "default")] {
            let client = connect(Some(file.path()), context).await.unwrap();
            assert_eq!(client.default_namespace(), namespace, "{context:?}");
        }
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_kubeconfig_is_said_with_its_name() {
        let rows = [
            (KUBECONFIG, Some("there"), "has no context `there`; it has: here, bare"),
            (&KUBECONFIG.replace("current-context: here", ""), None, "has no current context; give --context"),
            ("- no\n- kubeconfig\n", None, "cannot be used: line 1 column 1: expected mapping start"),
            (
                "kind: Config\nclusters: []\nclusters: []\n",
                None,
                "cannot be used: line 3 column 1: `clusters` is there twice in one mapping: remove one of them",
            ),
            ("kind: Config\nclusters:\n\t- a\n", None, "line 3 column 2: "),
            ("kind: Config\nclusters:\n\t- a\n", None, "; indent with blanks"),
            ("", None, "has no current context; it has no contexts at all"),
            (&KUBECONFIG.replace("user: {}", "user: {client-certificate: /nowhere}"), None, "/nowhere"),
        ];
        for (text, context, want) in rows {
            let file = file(text);
            let error = connect(Some(file.path()), context).await.err().unwrap().to_string();
            assert!(error.contains(want), "want {want:?}, got {error:?}");
            assert!(!error.contains('\n'), "{error:?}");
        }
        let error = connect(Some(Path::new("/nowhere/config")), None).await.err().unwrap().to_string();
        assert!(error.starts_with("kubeconfig /nowhere/config cannot be read: No such file"), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_named() {
        let file = file(KUBECONFIG);
        let client = connect(Some(file.path()), None).await.unwrap();
        let error = client.apiserver_version().await.err().unwrap();
        let said = Attempt::new("get", "version").explain(&error);
        assert_eq!(said, "the API server at http://127.0.0.1:1 cannot be reached: Connection refused (os error 111)");
    }

    #[test]
    fn a_refusal_names_the_right_or_the_object() {
        let forbidden = r#"deployments.apps is forbidden: User "ana" cannot list resource "deployments" in API group "apps" in the namespace "shop""#;
        let list = Attempt::new("list", "deployments").within("shop");
        let get = Attempt::new("get", "deployments").within("shop").named("churn");
        let rows = [
            (&list, 403, forbidden, r#"no right to list deployments in namespace shop: User "ana" lacks it"#),
            (&list, 403, "quota", "no right to list deployments in namespace shop: quota"),
            (&get, 404, "", "deployments/churn not found in namespace shop"),
            (&get, 404, r#"namespaces "shop" not found"#, "namespace shop does not exist"),
            (
                &Attempt::new("get", "namespaces").named("shop"),
                404,
                r#"namespaces "shop" not found"#,
                "namespace shop does not exist",
            ),
            (&list, 401, "", "the API server does not accept the credentials (401 Unauthorized)"),
            (&list, 500, "etcd is gone", "cannot list deployments in namespace shop: etcd is gone"),
        ];
        for (attempt, code, message, want) in rows {
            let status = kube::core::Status::failure(message, "").with_code(code);
            assert_eq!(attempt.explain(&kube::Error::Api(Box::new(status))), want);
        }
    }
}
