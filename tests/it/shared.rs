//! What all scenarios share: a control plane, another with a node, a surefoot for each, all started when first asked for
//! and gone with the run. A scenario lives in a namespace of its own, so they run side by side. One that stops or kills surefoot
//! brings its own control plane.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use anyhow::{Result, anyhow};

use crate::{
    relay::{Held, Relay},
    support::{ControlPlane, Kubectl, Node, Surefoot, http},
};

/// Quick, so that a scenario takes seconds: what is under test is the order of things, not their length. What is said of
/// policies concerns namespaces of trials that are about it.
pub(crate) const CONFIG: &str = "\
apiVersion: surefoot.dev/v1
kind: Config
policies:
  images:
    overrides:
      - {namespaces: {matchLabels: {images: warn}}, action: Warn}
      - {namespaces: {matchLabels: {images: audit}}, action: Audit}
  rollout-strategy:
    overrides:
      - {namespaces: {matchLabels: {strategy: any}}, action: Warn}
exemptions:
  - {policies: [probes, images], namespace: levels-exempt, name: now, reason: 'speaks only TCP, OPS-311', until: 2199-12-31}
  - {policies: ['*'], namespace: levels-exempt, name: past, reason: 'until the summer, OPS-312', until: 2024-08-31}
rollouts:
  budget: {failures: 3, percent: 10, window: 10m}
  bake: 10s
  overrides:
    - {namespaces: {matchLabels: {budget: default, bake: long}}, budget: {failures: 10}, bake: 10m}
    - {namespaces: {matchLabels: {budget: default}}, budget: {failures: 10}}
";

/// The configuration of the second control plane.
const STRICT: &str = "\
apiVersion: surefoot.dev/v1
kind: Config
policies:
  images: {existing: Deny}
";

/// The program under test.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_surefoot"))
}

/// The shared control plane.
pub(crate) fn plane() -> Result<&'static ControlPlane> {
    static PLANE: OnceLock<Result<ControlPlane, String>> = OnceLock::new();
    once(&PLANE, ControlPlane::start)
}

/// The shared control plane on which pods really run. It is not [`plane`]: the many Deployments there, whose pods nobody
/// looks at, would take the node from those that are looked at.
pub(crate) fn node() -> Result<&'static ControlPlane> {
    static NODE: OnceLock<Result<(ControlPlane, Node), String>> = OnceLock::new();
    let (plane, _) = once(&NODE, || {
        let plane = ControlPlane::start()?;
        let node = Node::start(&plane)?;
        Ok((plane, node))
    })?;
    Ok(plane)
}

/// The surefoot of [`plane`], webhook and controller running. Look, ask, but do not stop it: others use it.
pub(crate) fn surefoot() -> Result<MutexGuard<'static, Surefoot>> {
    static SUREFOOT: OnceLock<Result<Mutex<Surefoot>, String>> = OnceLock::new();
    running(&SUREFOOT, plane()?)
}

/// The same of [`node`].
pub(crate) fn surefoot_on_node() -> Result<MutexGuard<'static, Surefoot>> {
    static SUREFOOT: OnceLock<Result<Mutex<Surefoot>, String>> = OnceLock::new();
    running(&SUREFOOT, node()?)
}

fn running(
    cell: &'static OnceLock<Result<Mutex<Surefoot>, String>>,
    plane: &ControlPlane,
) -> Result<MutexGuard<'static, Surefoot>> {
    let surefoot = once(cell, || {
        let mut surefoot = Surefoot::install(plane, program(), CONFIG)?;
        surefoot.start_webhook()?;
        surefoot.start_controller()?;
        Ok(Mutex::new(surefoot))
    })?;
    Ok(surefoot.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A control plane of its own, with a surefoot that reaches it through a relay.
pub(crate) struct Second {
    pub(crate) plane: ControlPlane,
    pub(crate) surefoot: Surefoot,
    relay: Relay,
}

impl Second {
    /// Holds traffic back until what is returned is dropped.
    pub(crate) fn hold(&self, what: Held) -> impl Drop + use<> {
        struct Back(Relay);
        impl Drop for Back {
            fn drop(&mut self) {
                self.0.hold(Held::Nothing);
            }
        }
        self.relay.hold(what);
        Back(self.relay.clone())
    }
}

/// The second control plane, for one trial at a time: here surefoot can be cut off, and what is wrong already is refused
/// by one policy all the same.
pub(crate) fn second() -> Result<MutexGuard<'static, Second>> {
    static SECOND: OnceLock<Result<Mutex<Second>, String>> = OnceLock::new();
    let second = once(&SECOND, || {
        let plane = ControlPlane::start()?;
        let mut surefoot = Surefoot::install(&plane, program(), STRICT)?;
        let relay = Relay::start(&plane)?;
        relay.redirect(surefoot.webhook_account())?;
        surefoot.start_webhook()?;
        Ok(Mutex::new(Second { plane, surefoot, relay }))
    })?;
    Ok(second.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The value of one line of `/metrics`; 0 where it is not there yet.
pub(crate) fn metric(metrics: &http::Answer, line: &str) -> u64 {
    metrics.body.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0)
}

/// A namespace with a guard (`enforce`, …; empty for none) in which `ana` may edit. kubectl as the admin, and as ana.
pub(crate) fn namespace(plane: &ControlPlane, name: &str, guard: &str) -> Result<(Kubectl, Kubectl)> {
    let labels = if guard.is_empty() { String::new() } else { format!("surefoot.dev/guard: {guard}") };
    labelled_namespace(plane, name, &labels)
}

/// The same with any labels, in YAML.
pub(crate) fn labelled_namespace(plane: &ControlPlane, name: &str, labels: &str) -> Result<(Kubectl, Kubectl)> {
    plane.admin().apply(&format!(
        "
apiVersion: v1
kind: Namespace
metadata: {{name: {name}, labels: {{{labels}}}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: ana, namespace: {name}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: ana}}]
"
    ))?;
    Ok((plane.admin().in_namespace(name), plane.user("ana").in_namespace(name)))
}

/// Starts it once; a failed start fails all that need it, with the same words.
pub(crate) fn once<T>(
    cell: &'static OnceLock<Result<T, String>>,
    start: impl FnOnce() -> Result<T>,
) -> Result<&'static T> {
    let started = cell.get_or_init(|| start().map_err(|error| format!("{error:#}")));
    started.as_ref().map_err(|error| anyhow!("{error}"))
}
