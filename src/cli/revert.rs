//! `surefoot revert`: what the controller does to a rollout that spends its budget, because a person says so.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anyhow::{anyhow, bail};
use clap::Args;
use jiff::Timestamp;
use kube::Client;

use super::{
    ClusterArgs, Outcome,
    live::{self, Cluster},
    print,
    values::{DryRun, deployment_name},
};
use crate::{
    cluster::{
        access::{self, Right},
        own_namespace, rollouts,
    },
    config::Guard,
    controller::by_hand::{Hand, NotReverted},
    rollout::{
        record::{self, ByHand, StallReason},
        view::Seen,
    },
    template::{keys, overriding},
};

/// Put the last version of a Deployment that settled back, and quarantine the one it replaces.
///
/// The same steps and guards as the controller's: server dry run, record, patch, Event. A revert that is cut off can be
/// asked for again; where surefoot acts, the controller finishes it.
#[derive(Debug, Args)]
pub(super) struct Revert {
    /// Deployment: NAME or deploy/NAME
    #[arg(value_parser = deployment_name, value_name = "NAME")]
    name: String,
    /// Namespace; default: that of the context
    #[arg(short, long)]
    namespace: Option<String>,
    /// Why, in a few words: record, Event and denials repeat it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do not ask on a terminal
    #[arg(short, long)]
    yes: bool,
    /// server: have the API server say whether it would take it, and change nothing
    #[arg(long, value_enum, default_value_t, value_name = "HOW", hide_possible_values = true)]
    dry_run: DryRun,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Revert {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let reason = self.reason.as_deref().map(overriding::fit_reason).transpose()?.unwrap_or_default();
        live::run(self.revert(reason))
    }

    async fn revert(&self, reason: String) -> anyhow::Result<Outcome> {
        let (case, planned) = match live::patiently(self.plan(reason)).await? {
            (case, Ok(planned)) => (case, planned),
            (case, Err(why)) => return case.refused(&why),
        };
        let what = case.what(&planned);
        if self.dry_run == DryRun::Server {
            return match live::patiently(async { Ok(case.hand.try_out(&planned).await) }).await? {
                Ok(()) => print(&format!("(server dry run) {what}\n")).map(|()| Outcome::Fine),
                Err(why) => case.refused(&why),
            };
        }
        if !self.yes && !agreed(&what)? {
            anstream::eprintln!("not reverted; nothing was changed");
            return Ok(Outcome::Findings);
        }
        match live::patiently(async { Ok(case.hand.carry_out(&planned).await) }).await? {
            Ok(()) => {
                print(&format!("{what}\n{}", case.follows(&planned).await?))?;
                Ok(Outcome::Fine)
            }
            Err(why) => case.refused(&why),
        }
    }

    async fn plan(&self, reason: String) -> anyhow::Result<(Case, Result<record::Revert, NotReverted>)> {
        let cluster = Cluster::connect(&self.cluster).await?;
        let namespace = cluster.namespace(self.namespace.as_deref());
        let guard = cluster.guard(&namespace).await?;
        let seen = rollouts::read(&cluster.client, &namespace, &self.name).await.map_err(anyhow::Error::msg)?;
        let user = access::user(&cluster.client).await;
        may(&cluster.client, &namespace, user.as_deref()).await?;
        let event = Right::new("create", "events.k8s.io", "events", &namespace);
        let silent = !access::missing(&cluster.client, &[event]).await.is_empty();
        let asked = ByHand { user: user.unwrap_or_else(|| "somebody".to_owned()), reason };
        let hand = Hand::new(cluster.client.clone(), &own_namespace(), &namespace, &self.name, asked);
        let planned = hand.plan().await;
        Ok((Case { hand, seen, guard, silent }, planned))
    }
}

/// The Deployment that is reverted, and what is known of it.
struct Case {
    hand: Hand,
    seen: Seen,
    guard: Option<Guard>,
    /// The right to create Events is missing.
    silent: bool,
}

impl Case {
    /// `shop/churn: 2.4.0 reverted to 2.3.1 by hand by olga: INC-1234`
    fn what(&self, revert: &record::Revert) -> String {
        format!("{}/{}: {}", self.seen.namespace, self.seen.name, revert.note())
    }

    /// What it means, line by line.
    async fn follows(&self, revert: &record::Revert) -> anyhow::Result<String> {
        let Seen { namespace, name, .. } = &self.seen;
        let bad = revert.version.as_deref().unwrap_or("the template that was replaced");
        let mut lines = vec![match (revert.is_quarantine(Timestamp::now()), self.guard) {
            (false, _) => {
                ("note", format!("{bad} had settled once, so it is not quarantined: it can be applied again"))
            }
            (true, Some(guard)) if guard != Guard::Enforce => {
                ("note", format!("the guard of {namespace} is {guard}: {bad} is quarantined, but nothing keeps it out"))
            }
            (true, _) => ("quarantine", format!("{bad} is refused until it is changed, or settles under an override")),
        }];
        if let Some((until, _)) = self.seen.overridden(Timestamp::now()) {
            let end = format!("kubectl annotate deploy {name} -n {namespace} {}-", keys::OVERRIDE);
            lines.push(("note", format!("an override lets {bad} through until {until:.0}; to end it: {end}")));
        }
        if self.silent {
            let right = Right::new("create", "events.k8s.io", "events", namespace);
            lines.push(("note", format!("no Event tells of it: no right to {right}")));
        }
        if self.hand.is_helm_3().await? {
            lines.push(("helm", "helm rollback before the next helm upgrade".to_owned()));
        }
        lines.push(("next", format!("surefoot status {name} -n {namespace}")));
        Ok(lines.into_iter().map(|(what, text)| format!("  {what:<12}{text}\n")).collect())
    }

    /// Why it is not reverted: a refusal is a finding, not being able to ask is an error.
    fn refused(&self, why: &NotReverted) -> anyhow::Result<Outcome> {
        let Seen { namespace, name, .. } = &self.seen;
        let more = match why {
            NotReverted::Failed(why) => bail!("{why}"),
            NotReverted::Stalled(StallReason::SameTemplate) => {
                let version = self.seen.version.as_deref().unwrap_or("what runs");
                anstream::eprintln!(
                    "not reverted: {version} is itself the last version of {namespace}/{name} that settled; to go back \
                     further: kubectl rollout undo deploy/{name} -n {namespace}"
                );
                return Ok(Outcome::Findings);
            }
            NotReverted::Stalled(
                StallReason::TooManyReverts | StallReason::NothingSettled | StallReason::HistoryLost,
            ) => {
                format!("; by yourself: kubectl rollout undo deploy/{name} -n {namespace}")
            }
            NotReverted::Stalled(StallReason::Paused) => {
                format!("; first: kubectl rollout resume deploy/{name} -n {namespace}")
            }
            _ => String::new(),
        };
        anstream::eprintln!("not reverted: {why}{more}");
        Ok(Outcome::Findings)
    }
}

/// All that is missing at once: a revert has many steps, and none is made before all of them can be.
async fn may(client: &Client, namespace: &str, user: Option<&str>) -> anyhow::Result<()> {
    let own = own_namespace();
    let rights = [
        Right::new("patch", "apps", "deployments", namespace),
        Right::new("get", "apps", "replicasets", namespace),
        Right::new("list", "apps", "replicasets", namespace),
        Right::new("get", "", "configmaps", &own),
        Right::new("create", "", "configmaps", &own),
        Right::new("update", "", "configmaps", &own),
    ];
    let missing = access::missing(client, &rights).await;
    if missing.is_empty() {
        return Ok(());
    }
    let listed = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let who = user.map_or_else(|| "you lack it".to_owned(), |user| format!("User \"{user}\" lacks it"));
    let user = user.unwrap_or("USER");
    let grant = |namespace: &str, kind: &str| {
        format!("kubectl create rolebinding surefoot-revert -n {namespace} --{kind}=surefoot-revert --user={user}")
    };
    let grants = [(namespace, "clusterrole"), (own.as_str(), "role")]
        .into_iter()
        .filter(|(namespace, _)| missing.iter().any(|right| right.namespace == *namespace))
        .map(|(namespace, kind)| grant(namespace, kind));
    Err(anyhow!("no right to {listed}: {who}; an admin grants it: {}", grants.collect::<Vec<_>>().join(" && ")))
}

/// Asks, where there is somebody to ask.
fn agreed(what: &str) -> anyhow::Result<bool> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Ok(true);
    }
    anstream::eprint!("{what}\ngo on? [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
