//! What the commands that ask a live cluster share.

use std::{future::Future, time::Duration};

use anyhow::{Context as _, anyhow, bail, ensure};
use kube::Client;

use super::ClusterArgs;
use crate::{
    cluster::{
        Attempt, Namespace, client,
        inventory::{self, Held},
        own_namespace,
        records::Records,
    },
    config::Guard,
    template::keys,
};

/// A command asks for no longer than this before it says that there is no answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a command that asks a cluster.
pub(super) fn run<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start")?.block_on(command)
}

/// Ends an attempt that takes too long.
pub(super) async fn patiently<T>(asked: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(|_| Err(anyhow!("the API server gave no answer for {} s", PATIENCE.as_secs())))
}

/// The cluster, and what is where in it.
pub(super) struct Cluster {
    pub(super) client: Client,
    pub(super) records: Records,
    own_namespace: String,
}

impl Cluster {
    pub(super) async fn connect(args: &ClusterArgs) -> anyhow::Result<Self> {
        let client = client::connect(args.kubeconfig.as_deref(), args.context.as_deref()).await?;
        let own_namespace = own_namespace();
        let records = Records::new(client.clone(), &own_namespace);
        Ok(Self { client, records, own_namespace })
    }

    /// The namespace asked for, else the context's.
    pub(super) fn namespace(&self, asked: Option<&str>) -> String {
        asked.unwrap_or_else(|| self.client.default_namespace()).to_owned()
    }

    /// Its guard. `None`: the right to read it is missing, which stops nobody from looking at rollouts in it.
    pub(super) async fn guard(&self, namespace: &str) -> anyhow::Result<Option<Guard>> {
        Ok(self.read(namespace).await?.map(|found| found.guard))
    }

    /// The guarded namespace. `None`: the right to read it is missing.
    pub(super) async fn read(&self, namespace: &str) -> anyhow::Result<Option<Namespace>> {
        match Namespace::read(&self.client, namespace, &self.own_namespace).await {
            Ok(Some(found)) => Ok(Some(found)),
            Ok(None) if namespace == "kube-system" || namespace == self.own_namespace => {
                bail!("surefoot keeps its hands off namespace {namespace}")
            }
            Ok(None) => bail!(
                "namespace {namespace} is not guarded, so surefoot watches no rollout in it; to begin without \
                 changing anything: kubectl label namespace {namespace} {}=audit; those that are: surefoot status -A",
                keys::GUARD
            ),
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
            Err(error) => bail!("{}", Attempt::new("get", "namespaces").named(namespace).explain(&error)),
        }
    }

    /// The namespace, whether it is guarded or not, or all guarded ones, with what they hold.
    pub(super) async fn held(&self, namespace: Option<&str>) -> anyhow::Result<Vec<Held>> {
        match namespace {
            Some(name) => self.held_in(vec![name.to_owned()]).await,
            None => {
                let held = inventory::read_guarded(&self.client, &self.own_namespace).await.map_err(|error| {
                    anyhow!("{error}; one namespace can be judged with rights in it alone: --cluster -n NAMESPACE")
                })?;
                ensure!(
                    !held.is_empty(),
                    "no namespace is guarded; to see what guarding one would refuse: surefoot check --cluster -n NAMESPACE"
                );
                Ok(held)
            }
        }
    }

    /// These namespaces with what they hold.
    pub(super) async fn held_in(&self, namespaces: Vec<String>) -> anyhow::Result<Vec<Held>> {
        if let Some(name) = namespaces.iter().find(|name| *name == "kube-system" || **name == self.own_namespace) {
            bail!("surefoot keeps its hands off namespace {name}");
        }
        inventory::read(&self.client, &self.own_namespace, &namespaces).await.map_err(anyhow::Error::msg)
    }

    /// Every guarded namespace.
    pub(super) async fn guarded(&self) -> anyhow::Result<Vec<Namespace>> {
        let found = Namespace::list(&self.client, &self.own_namespace).await;
        found.map_err(|error| anyhow!("{}", Attempt::new("list", "namespaces").explain(&error)))
    }
}
