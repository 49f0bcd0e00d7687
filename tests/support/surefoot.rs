//! surefoot itself, as it is installed: its manifests applied, its certificates made, webhook and controller running
//! beside the API server with the tokens of their own service accounts.

use std::{
    ffi::OsStr,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Result;

use super::{
    control_plane::ControlPlane,
    http::Https,
    kubectl::{Answer, capture},
    run::{self, Process},
    watch::{Look, until},
};

/// surefoot's own namespace and service accounts, as `surefoot manifests` prints them.
const NAMESPACE: &str = "surefoot-system";
const WEBHOOK: &str = "surefoot-webhook";
const CONTROLLER: &str = "surefoot-controller";

/// Longer than surefoot takes to drain.
const STOP: Duration = Duration::from_secs(30);

/// surefoot in one control plane. Webhook and controller end when it is dropped, or with the run.
pub(crate) struct Surefoot {
    program: PathBuf,
    folder: PathBuf,
    listen: SocketAddr,
    client: Https,
    webhook_account: PathBuf,
    controller_account: PathBuf,
    webhook: Option<Process>,
    controller: Option<Process>,
}

impl Surefoot {
    /// Registers it in `plane`; starts nothing. `config` is the text of its `config.yaml`.
    pub(crate) fn install(plane: &ControlPlane, program: &Path, config: &str) -> Result<Self> {
        let folder = run::subfolder("surefoot")?;
        fs::write(folder.join("config.yaml"), config)?;
        let listen = SocketAddr::from(([127, 0, 0, 1], run::free_port()?));
        let surefoot = |args: &[&OsStr]| {
            let mut command = Command::new(program);
            command.args(args);
            capture(command, "surefoot", "")?.success()
        };
        surefoot(&["certs".as_ref(), folder.as_os_str()])?;
        let (url, ca) = (format!("https://{listen}"), folder.join("ca.crt"));
        let manifests =
            surefoot(&["manifests".as_ref(), "--url".as_ref(), url.as_ref(), "--ca".as_ref(), ca.as_ref()])?;
        plane.admin().apply(&manifests.stdout)?;
        Ok(Self {
            program: program.to_owned(),
            listen,
            client: Https::new(&ca, None)?,
            webhook_account: plane.service_account(NAMESPACE, WEBHOOK)?,
            controller_account: plane.service_account(NAMESPACE, CONTROLLER)?,
            folder,
            webhook: None,
            controller: None,
        })
    }

    /// Starts the webhook and waits until it is ready.
    pub(crate) fn start_webhook(&mut self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.args(["webhook", "--listen", &self.listen.to_string()]);
        command.arg("--tls-cert").arg(self.folder.join("tls.crt")).arg("--tls-key").arg(self.folder.join("tls.key"));
        command.arg("--config").arg(self.config()).arg("--kubeconfig").arg(&self.webhook_account);
        // As in a pod: whoever tests may have set RUST_BACKTRACE, which costs a quarter of each review. A panic still has one.
        command.env("RUST_LIB_BACKTRACE", "0");
        let process = self.webhook.insert(Process::start("webhook", &self.folder, command)?);
        let (client, listen) = (self.client.clone(), self.listen);
        until("the webhook to be ready", Duration::from_secs(60), || {
            process.check()?;
            Ok(match client.get(listen, "/readyz") {
                Ok(answer) if answer.status == 200 => Look::Done(()),
                Ok(answer) => Look::Not(format!("{} {}", answer.status, answer.body)),
                Err(error) => Look::Not(format!("{error:#}")),
            })
        })
        .map_err(|error| anyhow::anyhow!("{error:#}\n{}", self.tails()))
    }

    /// The process id of the webhook.
    pub(crate) fn webhook(&self) -> Option<u32> {
        self.webhook.as_ref().map(Process::id)
    }

    /// Starts the controller; what it does is seen in the cluster.
    pub(crate) fn start_controller(&mut self) -> Result<()> {
        self.start_controller_with(&[])
    }

    /// The same with a port for its metrics; gives its process id.
    pub(crate) fn start_controller_listening(&mut self, listen: SocketAddr) -> Result<u32> {
        self.start_controller_as(|command| command.args(["--listen", &listen.to_string()]))
    }

    /// The same with environment variables of its own.
    pub(crate) fn start_controller_with(&mut self, environment: &[(&str, &str)]) -> Result<()> {
        self.start_controller_as(|command| command.envs(environment.iter().copied())).map(drop)
    }

    fn start_controller_as(&mut self, more: impl FnOnce(&mut Command) -> &mut Command) -> Result<u32> {
        let mut command = Command::new(&self.program);
        command.arg("controller").arg("--config").arg(self.config());
        command.arg("--kubeconfig").arg(&self.controller_account);
        more(&mut command);
        Ok(self.controller.insert(Process::start("controller", &self.folder, command)?).id())
    }

    /// SIGTERM, and wait for its end.
    pub(crate) fn stop_webhook(&mut self) -> Result<()> {
        self.webhook.take().map_or(Ok(()), |mut process| process.stop(STOP).map(drop))
    }

    /// SIGTERM, and wait for its end.
    pub(crate) fn stop_controller(&mut self) -> Result<()> {
        self.controller.take().map_or(Ok(()), |mut process| process.stop(STOP).map(drop))
    }

    /// Whether the controller has ended by itself.
    pub(crate) fn controller_has_ended(&mut self) -> bool {
        self.controller.as_mut().is_none_or(|process| process.check().is_err())
    }

    /// `kill -9`.
    pub(crate) fn kill_webhook(&mut self) {
        self.webhook = None;
    }

    /// `kill -9`.
    pub(crate) fn kill_controller(&mut self) {
        self.controller = None;
    }

    /// Any other command of surefoot, e.g. `["status", "-A"]`, as the user of a kubeconfig.
    pub(crate) fn run(&self, kubeconfig: &Path, args: &[&str]) -> Result<Answer> {
        Self::run_program(&self.program, kubeconfig, args)
    }

    /// The same without an installation.
    pub(crate) fn run_program(program: &Path, kubeconfig: &Path, args: &[&str]) -> Result<Answer> {
        let mut command = Command::new(program);
        command.args(args).env("KUBECONFIG", kubeconfig);
        capture(command, &format!("surefoot {}", args.join(" ")), "")
    }

    /// The configuration's file; what is written to it counts from the next start on.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("config.yaml")
    }

    /// Kubeconfig of the controller's service account, to act as it.
    pub(crate) fn controller_account(&self) -> &Path {
        &self.controller_account
    }

    /// Kubeconfig of the webhook's service account.
    pub(crate) fn webhook_account(&self) -> &Path {
        &self.webhook_account
    }

    /// Asks the webhook's server, e.g. for `/metrics`.
    pub(crate) fn get(&self, path: &str) -> Result<super::http::Answer> {
        self.client.get(self.listen, path)
    }

    /// The CA of the webhook's certificate (PEM).
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// Where the webhook listens.
    pub(crate) fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Whole logs, also of processes that have ended.
    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name).with_extension("log")).unwrap_or_default()
    }

    /// The ends of both logs, for messages of failed tests.
    pub(crate) fn tails(&self) -> String {
        ["webhook", "controller"]
            .map(|name| {
                let log = self.log(name);
                let lines: Vec<&str> = log.lines().collect();
                format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(20)..].join("\n"))
            })
            .concat()
    }
}
