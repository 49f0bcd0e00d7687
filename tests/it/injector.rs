//! Somebody else's admission webhook, as a mesh or an agent brings one: it puts containers into Deployments, and another
//! of its hooks looks at what finally comes out.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::{CertificateParams, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::{
    relay::{head, serving},
    support::{ControlPlane, run},
};

/// A running injector, for as long as the process lives.
pub(crate) struct Injector {
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// A review that it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Which of its hooks: `proxy`, `server`, `stamp` or `look`.
    pub(crate) hook: String,
    /// The object as it came.
    pub(crate) object: Value,
}

/// Its hooks, the names of their configurations (the API server calls them in this order, surefoot between the second
/// and the third), and the label of the namespaces that they look at.
const HOOKS: [(&str, &str, &str); 3] =
    [("proxy", "a-proxy", "injected"), ("stamp", "b-stamp", "stamped"), ("server", "z-server", "injected")];

impl Injector {
    /// Serves, and registers itself.
    pub(crate) fn start(plane: &ControlPlane) -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.self_signed(&key)?;
        let server = serving(certificate.pem().as_bytes(), key.serialize_pem().as_bytes())?;
        let listener = TcpListener::bind(("127.0.0.1", run::free_port()?))?;
        let url = format!("https://{}", listener.local_addr()?);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let journal = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (server, journal) = (Arc::clone(&server), Arc::clone(&journal));
                // The API server ends a connection when it likes.
                thread::spawn(move || drop(serve(stream, server, &journal)));
            }
        });
        let bundle = BASE64_STANDARD.encode(certificate.pem());
        let mutating = HOOKS.map(|(hook, name, label)| {
            let mut object = configuration("MutatingWebhookConfiguration", name, &url, hook, &bundle);
            object["webhooks"][0]["reinvocationPolicy"] = json!("IfNeeded");
            object["webhooks"][0]["namespaceSelector"] = json!({"matchLabels": {label: "yes"}});
            object
        });
        let mut look = configuration("ValidatingWebhookConfiguration", "look", &url, "look", &bundle);
        look["webhooks"][0]["namespaceSelector"] =
            json!({"matchExpressions": [{"key": "looked-at", "operator": "Exists"}]});
        let all = mutating.into_iter().chain([look]).collect::<Vec<_>>();
        plane.admin().apply(&json!({"apiVersion": "v1", "kind": "List", "items": all}).to_string())?;
        Ok(Self { seen })
    }

    /// What it was asked about a Deployment since the last time.
    pub(crate) fn take(&self, namespace: &str) -> Vec<Seen> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (taken, others) = seen.drain(..).partition(|one| one.object["metadata"]["namespace"] == namespace);
        *seen = others;
        taken
    }
}

fn configuration(kind: &str, name: &str, url: &str, hook: &str, bundle: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name},
        "webhooks": [{
            "name": format!("{name}.example.com"),
            "clientConfig": {"url": format!("{url}/{hook}"), "caBundle": bundle},
            "rules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"],
                "operations": ["CREATE", "UPDATE"]}],
            "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 10,
        }],
    })
}

/// Reviews on one connection, until it ends.
fn serve(stream: TcpStream, server: Arc<ServerConfig>, journal: &Mutex<Vec<Seen>>) -> Result<()> {
    let mut client = StreamOwned::new(ServerConnection::new(server)?, stream);
    loop {
        let head = head(&mut client)?;
        let hook = head.split(['/', '?', ' ']).nth(2).context("a path")?.to_owned();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let mut body = vec![0; length.context("a length")?];
        client.read_exact(&mut body)?;
        let review: Value = serde_json::from_slice(&body)?;
        let request = &review["request"];
        let (uid, object) = (&request["uid"], &request["object"]);
        let count = {
            let mut seen = journal.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push(Seen { hook: hook.clone(), object: object.clone() });
            seen.len()
        };
        let mut response = json!({"uid": uid, "allowed": true});
        let patch = patch(&hook, object, count);
        if patch != json!([]) {
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(BASE64_STANDARD.encode(patch.to_string()));
        }
        let answer =
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).to_string();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length:";
        client.write_all(format!("{head} {}\r\n\r\n{answer}", answer.len()).as_bytes())?;
        client.flush()?;
    }
}

fn patch(hook: &str, object: &Value, count: usize) -> Value {
    let pod = &object["spec"]["template"]["spec"];
    let has = |name: &str| pod["containers"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == name));
    let probe = json!({"httpGet": {"path": "/", "port": 15021}, "periodSeconds": 20, "failureThreshold": 4});
    let resources = json!({"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "10m", "memory": "16Mi"}});
    match hook {
        "proxy" if !has("proxy") => json!([{"op": "add", "path": "/spec/template/spec/containers/-", "value": {
            "name": "proxy", "image": "registry.local/proxy:1.0.0", "resources": resources,
            "readinessProbe": probe, "livenessProbe": probe}}]),
        // In front of all others, and without the probes that surefoot has for it.
        "server" if !has("server") => json!([{"op": "add", "path": "/spec/template/spec/containers/0", "value": {
            "name": "server", "image": "nvcr.io/nvidia/tritonserver:24.05-py3", "resources": resources,
            "ports": [{"containerPort": 8000}], "livenessProbe": probe}}]),
        // Never content with what is there.
        "stamp" => json!([{"op": "add", "path": "/spec/template/metadata/annotations",
            "value": {"example.com/stamp": count.to_string()}}]),
        _ => json!([]),
    }
}
