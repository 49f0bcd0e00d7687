//! `surefoot manifests`: the files of `manifests/base`, compiled in, so that what is printed is what is reviewed and tested.

use std::{fmt::Write, path::PathBuf};

use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};
use clap::Args;
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::Outcome;

/// In the order in which they can be applied: what counts wherever surefoot runs.
const COMMON: [&str; 4] = [
    include_str!("../../manifests/base/namespace.yaml"),
    include_str!("../../manifests/base/accounts.yaml"),
    include_str!("../../manifests/base/rbac.yaml"),
    include_str!("../../manifests/base/bounds.yaml"),
];
/// What runs in the cluster.
const INSIDE: [&str; 5] = [
    include_str!("../../manifests/base/config.yaml"),
    include_str!("../../manifests/base/service.yaml"),
    include_str!("../../manifests/base/webhook.yaml"),
    include_str!("../../manifests/base/controller.yaml"),
    include_str!("../../manifests/base/network.yaml"),
];
/// Last: a Fail hook is there only once everything else is.
const HOOKS: &str = include_str!("../../manifests/base/hooks.yaml");
/// As the files name it.
const IMAGE: &str = concat!("localhost/surefoot:", env!("CARGO_PKG_VERSION"));

/// Print what installs surefoot in a cluster
///
/// The same as `kubectl kustomize manifests`: namespace surefoot-system, webhook and controller with a service account each and
/// the rights they need, the ValidatingAdmissionPolicy that bounds them, and the hooks. The controller makes the webhook's
/// certificate and registers it. The image is what `make image` builds; `--image` says where the nodes find it.
///
/// With `--url` the hooks call processes that run outside the cluster, and nothing that runs inside is printed. Give `--ca` the
/// ca.crt that `surefoot certs` wrote.
///
/// The hooks ask only about namespaces that have the label surefoot.dev/guard.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  surefoot manifests --image registry.example.com/surefoot:0.1.0 | kubectl apply -f -
  kubectl label namespace shop surefoot.dev/guard=audit     # then warn, then enforce

Beside the cluster, at an address that its API server reaches; each FILE is a copy of your kubeconfig with
the token of an account: kubectl create token -n surefoot-system surefoot-webhook (surefoot-controller):
  surefoot certs certs --host ADDRESS
  surefoot manifests --url https://ADDRESS:8443 --ca certs/ca.crt | kubectl apply -f -
  surefoot webhook --tls-cert certs/tls.crt --tls-key certs/tls.key --kubeconfig FILE1
  surefoot controller --kubeconfig FILE2")]
pub(super) struct Manifests {
    /// Where the nodes find the image [default: localhost/surefoot and this version]
    #[arg(long, value_name = "IMAGE", conflicts_with = "url")]
    image: Option<String>,
    /// Register processes that run outside the cluster under this URL, e.g. https://127.0.0.1:8443
    #[arg(long, requires = "ca")]
    url: Option<String>,
    /// CA certificate (PEM) that signed the serving certificate
    #[arg(long, value_name = "FILE", requires = "url")]
    ca: Option<PathBuf>,
}

impl Manifests {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let Some(url) = self.url else {
            super::print(&inside(self.image.as_deref())?)?;
            return Ok(Outcome::Fine);
        };
        let ca = self.ca.map(|file| ca_bundle(&file)).transpose()?;
        super::print(&outside(&base_url(&url)?, &ca.unwrap_or_default()))?;
        Ok(Outcome::Fine)
    }
}

/// The objects that are installed in a cluster.
pub(super) fn objects() -> anyhow::Result<Vec<serde_json::Value>> {
    serde_saphyr::from_multiple(&inside(None)?).context("the manifests that are compiled in cannot be read")
}

/// What is installed in a cluster, as one YAML stream.
fn inside(image: Option<&str>) -> anyhow::Result<String> {
    let text = [COMMON.as_slice(), &INSIDE, &[HOOKS]].concat().join("---\n");
    let Some(image) = image else { return Ok(text) };
    let plain = !image.is_empty() && image.chars().all(|sign| sign.is_ascii_alphanumeric() || "./:@-_".contains(sign));
    anyhow::ensure!(
        plain,
        "`--image {image}`: it takes the name of an image, like registry.example.com/surefoot:0.1.0"
    );
    Ok(text.replace(&format!("image: {IMAGE}\n"), &format!("image: {image}\n")))
}

/// What processes beside the cluster need in it, as one YAML stream.
fn outside(url: &str, ca: &str) -> String {
    [COMMON.as_slice(), &[&hooks(url, ca)]].concat().join("---\n")
}

/// The hooks with their `clientConfig` filled in. Text, not a tree: the comments and the layout of the conditions stay.
fn hooks(url: &str, ca: &str) -> String {
    let mut text = String::with_capacity(HOOKS.len() + 8192);
    for line in HOOKS.lines() {
        let Some((indent, service)) = line.split_once("service: {") else {
            let _ = writeln!(text, "{line}");
            continue;
        };
        let path = service.rsplit_once("path: ").map_or("", |(_, rest)| rest.trim_end_matches('}'));
        let _ = writeln!(text, "{indent}url: {url}{path}\n{indent}caBundle: {ca}");
    }
    text
}

/// `https://HOST[:PORT]`, as the API server wants it.
fn base_url(text: &str) -> anyhow::Result<String> {
    let url = text.trim_end_matches('/');
    let parsed = url.parse::<hyper::Uri>().ok();
    let good = parsed.is_some_and(|uri| {
        uri.scheme_str() == Some("https")
            && uri.path() == "/"
            && uri.query().is_none()
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    });
    anyhow::ensure!(good, "`--url {text}`: it takes https, a host and a port, like https://127.0.0.1:8443");
    Ok(url.to_owned())
}

/// The file in base64, once it is known to hold a certificate (the API server refuses the hooks otherwise).
fn ca_bundle(file: &std::path::Path) -> anyhow::Result<String> {
    let name = file.display();
    let pem = std::fs::read(file)
        .with_context(|| format!("cannot read {name}; `surefoot certs DIR` makes a CA and a serving certificate"))?;
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    anyhow::ensure!(
        certificates.is_ok_and(|found| !found.is_empty()),
        "{name} holds no PEM certificate (-----BEGIN CERTIFICATE-----); give the ca.crt that `surefoot certs DIR` wrote"
    );
    anyhow::ensure!(
        !pem.windows(b"PRIVATE KEY-----".len()).any(|window| window == b"PRIVATE KEY-----"),
        "{name} holds a private key, which everybody who reads the hooks would see; give the certificate alone"
    );
    Ok(BASE64_STANDARD.encode(pem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_url_every_hook_has_url_and_ca_and_no_service_is_left() {
        let text = outside("https://127.0.0.1:8443", "Q0E=");
        for path in ["/mutate", "/validate", "/scale"] {
            assert!(
                text.contains(&format!("      url: https://127.0.0.1:8443{path}\n      caBundle: Q0E=\n")),
                "{path}"
            );
        }
        assert!(!text.contains("service: {") && !text.contains("kind: Service\n"), "{text}");
    }

    #[test]
    fn the_image_is_named_in_both_deployments_and_nowhere_else() {
        let text = inside(None).unwrap();
        assert_eq!(text.matches(&format!("image: {IMAGE}\n")).count(), 2, "the files name another version's image");
        assert_eq!(text.matches("image: ").count(), 2);
        let other = inside(Some("registry.example.com:5000/ml/surefoot@sha256:0a")).unwrap();
        assert_eq!(other.matches("image: registry.example.com:5000/ml/surefoot@sha256:0a\n").count(), 2);
        for bad in ["", "a b", "x\ny", "$IMAGE", "x#"] {
            assert!(inside(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn both_deployment_hooks_have_the_same_conditions() {
        let conditions: Vec<&str> = HOOKS
            .split("  - name: default.surefoot.dev")
            .flat_map(|part| part.split("  - name: validate.surefoot.dev"))
            .filter_map(|part| part.split_once("matchConditions:\n")?.1.split("\n---").next()?.split("\n  #").next())
            .map(str::trim_end)
            .collect();
        assert_eq!(conditions.len(), 2);
        assert_eq!(conditions[0], conditions[1]);
    }

    #[test]
    fn urls_that_the_api_server_would_refuse() {
        for bad in
            ["http://127.0.0.1:8443", "127.0.0.1:8443", "https://", "https://h/path", "https://u@h", "https://h?q"]
        {
            assert!(base_url(bad).is_err(), "{bad}");
        }
        for good in
            ["https://127.0.0.1:8443", "https://127.0.0.1:8443/", "https://[::1]:8443", "https://surefoot.example"]
        {
            assert_eq!(base_url(good).unwrap(), good.trim_end_matches('/'));
        }
    }
}
