//! What an installation needs that runs inside the cluster: the webhook's certificate in a Secret, hooks that trust it, and
//! hooks that go when surefoot's Namespace goes, so that none is left which asks nobody.
//!
//! ```text
//!   Secret, hooks ── watched ──▶ look ──▶ certificates::decide ──▶ hooks, then Secret; each guarded by its resourceVersion
//! ```
//!
//! Only whoever leads writes. The webhook has no part in it: the kubelet brings the Secret to its pods.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures::{StreamExt, stream::BoxStream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        core::v1::{Namespace, Secret},
    },
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
    core::{PartialObjectMeta, Request},
    runtime::{
        WatchStreamExt,
        watcher::{self, watcher},
    },
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::sleep;
use tracing::{info, warn};

use super::{
    lease::Leadership,
    writes::{Unwritten, Write, Writer, unwritten},
};
use crate::{
    certificates::{self, Issued, Need, Stored},
    cluster::Attempt,
    template::keys,
};

/// Looked at again after this long, whatever the watches say.
const AGAIN: Duration = Duration::from_secs(60);
/// After something did not work.
const RETRY: Duration = Duration::from_secs(2);

/// What to look after.
#[derive(Clone, Debug)]
pub struct Installed {
    /// Name of both webhook configurations.
    pub hooks: String,
    /// The certificate to make; `None`: somebody else does, and tells the hooks.
    pub certificate: Option<Certificate>,
}

/// Of the Service that the hooks call.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The Secret that holds it, in surefoot's own namespace.
    pub secret: String,
    /// How long one is valid.
    pub lifetime: SignedDuration,
}

/// Looks after it for as long as this process leads; never ends.
pub(super) async fn keep(writer: &Writer, mut leadership: Leadership, installed: &Installed) -> Infallible {
    let keeper = Keeper { writer, installed };
    loop {
        leadership.begins().await;
        tokio::select! {
            never = keeper.keep() => match never {},
            () = leadership.ends() => {}
        }
    }
}

struct Keeper<'a> {
    writer: &'a Writer,
    installed: &'a Installed,
}

/// One of the two configurations, as it is now.
struct Hooks {
    plural: &'static str,
    object: Value,
}

impl Keeper<'_> {
    async fn keep(&self) -> Infallible {
        let mut events = self.events();
        let mut told = None;
        loop {
            let pause = match self.look().await {
                Ok(due) => {
                    told = None;
                    due.map_or(AGAIN, |due| until(due).min(AGAIN))
                }
                Err(Unwritten::Changed) => Duration::ZERO,
                Err(why) => {
                    let why = why.to_string();
                    if told.as_ref() != Some(&why) {
                        warn!("certificate and hooks: {why}; trying again");
                    }
                    told = Some(why);
                    RETRY
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                Some(()) = events.next() => {}
            }
        }
    }

    /// Looks once, and does what is needed. Gives the time at which the certificate is due.
    async fn look(&self) -> Result<Option<Timestamp>, Unwritten> {
        let own: Namespace = self.get(&Api::all(self.client()), self.writer.own_namespace()).await?;
        let owner = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "name": self.writer.own_namespace(), "uid": own.metadata.uid,
        });
        let hooks = self.hooks().await?;
        let Some(certificate) = &self.installed.certificate else {
            self.register(&hooks, &owner, None).await?;
            return Ok(None);
        };
        let api: Api<Secret> = Api::namespaced(self.client(), self.writer.own_namespace());
        let secret = match self.get(&api, &certificate.secret).await {
            Ok(secret) => Some(secret),
            Err(Unwritten::Changed) => None,
            Err(why) => return Err(why),
        };
        let stored = secret.as_ref().map(stored);
        let name = &certificates::service_names(self.writer.own_namespace(), keys::WEBHOOK_ACCOUNT)[0];
        let trusted: Vec<_> = hooks.iter().flat_map(|hooks| hooks.trusted(self.writer.own_namespace())).collect();
        let now = Timestamp::now();
        match certificates::decide(stored, &trusted, name, now) {
            Need::Issue(why) => {
                let new =
                    Issued::for_service(self.writer.own_namespace(), keys::WEBHOOK_ACCOUNT, certificate.lifetime, now)
                        .map_err(|error| Unwritten::Refused(format!("cannot make a certificate: {error}")))?;
                let before = stored.iter().map(|stored| stored.ca).chain(trusted.iter().map(Vec::as_slice));
                let bundle = certificates::bundle(&new, before, now);
                self.register(&hooks, &owner, Some(bundle.as_bytes())).await?;
                self.store(certificate, secret, &new, &bundle).await?;
                info!(secret = certificate.secret, until = %(now + certificate.lifetime), "a new certificate for the webhook: {why}");
                // What is due then is decided by what is stored now.
                Err(Unwritten::Changed)
            }
            Need::Publish => {
                self.register(&hooks, &owner, stored.map(|stored| stored.ca)).await?;
                Err(Unwritten::Changed)
            }
            Need::Wait(due) => {
                self.register(&hooks, &owner, None).await?;
                Ok(Some(due))
            }
        }
    }

    async fn hooks(&self) -> Result<Vec<Hooks>, Unwritten> {
        let mut found = Vec::new();
        for plural in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
            let name = &self.installed.hooks;
            let attempt = Attempt::new("get", plural).named(name);
            let request = Request::new(PATH.to_owned() + plural).get(name, &kube::api::GetParams::default());
            let request = request.map_err(|error| Unwritten::Refused(error.to_string()))?;
            match self.writer.limited(self.client().request::<Value>(request)).await? {
                Ok(object) => found.push(Hooks { plural, object }),
                // Its watch says when it is there, and whoever installs applies it last.
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    let missing = format!("{plural}/{name} is missing, nothing is judged; apply the manifests again");
                    warn!("{missing}");
                }
                Err(error) => return Err(unwritten(&attempt, &error)),
            }
        }
        Ok(found)
    }

    /// Makes the hooks trust `bundle`, if there is one, and be owned by the Namespace, where they do not yet.
    async fn register(&self, hooks: &[Hooks], owner: &Value, bundle: Option<&[u8]>) -> Result<(), Unwritten> {
        for hooks in hooks {
            let operations = hooks.corrections(owner, bundle, self.writer.own_namespace());
            // The first is the guard.
            if operations.len() < 2 {
                continue;
            }
            let attempt = Attempt::new("patch", hooks.plural).named(&self.installed.hooks);
            let patch: json_patch::Patch = serde_json::from_value(Value::Array(operations))
                .map_err(|error| Unwritten::Refused(format!("no JSON patch: {error}")))?;
            let params = PatchParams { field_manager: Some(keys::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            let request = Request::new(PATH.to_owned() + hooks.plural)
                .patch(&self.installed.hooks, &params, &Patch::Json::<()>(patch))
                .map_err(|error| Unwritten::Refused(error.to_string()))?;
            let answer =
                self.writer.write(Write::Register, async |client| client.request::<Value>(request).await).await?;
            answer.map_err(|error| changed_if_guarded(unwritten(&attempt, &error), &error))?;
            info!(
                "{}/{} trusts the stored certificate and belongs to the Namespace",
                hooks.plural, self.installed.hooks
            );
        }
        Ok(())
    }

    async fn store(
        &self,
        certificate: &Certificate,
        secret: Option<Secret>,
        new: &Issued,
        bundle: &str,
    ) -> Result<(), Unwritten> {
        let there = secret.is_some();
        let mut secret = secret.unwrap_or_else(|| self.empty(&certificate.secret));
        let data = [("ca.crt", bundle), ("tls.crt", &new.cert), ("tls.key", &new.key)];
        let data = data.map(|(name, text)| (name.to_owned(), ByteString(text.as_bytes().to_vec())));
        secret.data.get_or_insert_default().extend(data);
        let params = PostParams { field_manager: Some(keys::FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let verb = if there { "update" } else { "create" };
        let attempt = Attempt::new(verb, "secrets").within(self.writer.own_namespace()).named(&certificate.secret);
        let namespace = self.writer.own_namespace().to_owned();
        let write = async |client: Client| {
            let api: Api<Secret> = Api::namespaced(client, &namespace);
            match there {
                true => api.replace(&certificate.secret, &params, &secret).await,
                false => api.create(&params, &secret).await,
            }
        };
        let answer = self.writer.write(Write::StoreCertificate, write).await?;
        answer.map(drop).map_err(|error| unwritten(&attempt, &error))
    }

    fn empty(&self, name: &str) -> Secret {
        let mut secret = Secret { type_: Some("kubernetes.io/tls".to_owned()), ..Secret::default() };
        secret.metadata.name = Some(name.to_owned());
        secret.metadata.namespace = Some(self.writer.own_namespace().to_owned());
        secret.metadata.labels = Some(BTreeMap::from([("app.kubernetes.io/name".to_owned(), "surefoot".to_owned())]));
        secret
    }

    /// An object; [`Unwritten::Changed`] when it is not there.
    async fn get<K>(&self, api: &Api<K>, name: &str) -> Result<K, Unwritten>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let attempt = Attempt::new("get", &K::plural(&())).named(name);
        self.writer.limited(api.get(name)).await?.map_err(|error| unwritten(&attempt, &error))
    }

    /// Something has happened to the Secret or to the hooks.
    fn events(&self) -> BoxStream<'static, ()> {
        let mut all = vec![
            changes::<MutatingWebhookConfiguration>(Api::all(self.client()), &self.installed.hooks),
            changes::<ValidatingWebhookConfiguration>(Api::all(self.client()), &self.installed.hooks),
        ];
        if let Some(certificate) = &self.installed.certificate {
            let secrets = Api::<PartialObjectMeta<Secret>>::namespaced(self.client(), self.writer.own_namespace());
            all.push(changes(secrets, &certificate.secret));
        }
        futures::stream::select_all(all).boxed()
    }

    fn client(&self) -> Client {
        self.writer.reads().clone()
    }
}

const PATH: &str = "/apis/admissionregistration.k8s.io/v1/";

impl Hooks {
    /// Those that call a Service of ours, by their place.
    fn ours<'a>(&'a self, own_namespace: &'a str) -> impl Iterator<Item = (usize, &'a Value)> {
        let all = self.object["webhooks"].as_array().map_or(&[][..], Vec::as_slice).iter().enumerate();
        all.map(|(index, hook)| (index, &hook["clientConfig"]))
            .filter(move |(_, config)| config["service"]["namespace"] == own_namespace)
    }

    /// What they trust, decoded; empty where that is nothing.
    fn trusted(&self, own_namespace: &str) -> Vec<Vec<u8>> {
        let bundle = |config: &Value| config["caBundle"].as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
        self.ours(own_namespace).map(|(_, config)| bundle(config).unwrap_or_default()).collect()
    }

    /// A JSON patch: the guard, and what is not as it should be.
    fn corrections(&self, owner: &Value, bundle: Option<&[u8]>, own_namespace: &str) -> Vec<Value> {
        let metadata = &self.object["metadata"];
        let mut operations =
            vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]})];
        let mut owners = metadata["ownerReferences"].as_array().cloned().unwrap_or_default();
        if !owners.iter().any(|one| one["uid"] == owner["uid"]) {
            // A Namespace of this name that is gone would take the hooks with it.
            owners.retain(|one| one["kind"] != owner["kind"] || one["name"] != owner["name"]);
            owners.push(owner.clone());
            operations.push(json!({"op": "add", "path": "/metadata/ownerReferences", "value": owners}));
        }
        if let Some(bundle) = bundle.map(|bundle| BASE64_STANDARD.encode(bundle)) {
            let other = self.ours(own_namespace).filter(|(_, config)| config["caBundle"] != bundle);
            operations.extend(other.map(|(index, _)| {
                json!({"op": "add", "path": format!("/webhooks/{index}/clientConfig/caBundle"), "value": bundle})
            }));
        }
        operations
    }
}

/// A guard that does not hold is a 422, like an object that is refused: asking again finds out.
fn changed_if_guarded(unwritten: Unwritten, error: &kube::Error) -> Unwritten {
    match error {
        kube::Error::Api(status) if status.code == 422 && status.message.contains("resourceVersion") => {
            Unwritten::Changed
        }
        _ => unwritten,
    }
}

fn stored(secret: &Secret) -> Stored<'_> {
    let file = |name| secret.data.as_ref().and_then(|data| data.get(name)).map_or(&[][..], |text| text.0.as_slice());
    Stored { ca: file("ca.crt"), cert: file("tls.crt"), key: file("tls.key") }
}

/// Whatever happens to the one of this name; its watch begins again by itself, and what it misses the next look sees.
fn changes<K>(api: Api<PartialObjectMeta<K>>, name: &str) -> BoxStream<'static, ()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    watcher(api, config).default_backoff().filter_map(async |event| event.is_ok().then_some(())).boxed()
}

/// How long it is until then.
fn until(then: Timestamp) -> Duration {
    then.duration_since(Timestamp::now()).try_into().unwrap_or_default()
}
