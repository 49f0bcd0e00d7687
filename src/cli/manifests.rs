//! `surefoot manifests`: the files of `manifests/`, compiled in, so that what is printed is what is reviewed and tested.

use std::{fmt::Write, path::PathBuf};

use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};
use clap::Args;
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::Outcome;

/// In the order in which they can be applied, hooks last: a Fail hook is there only once everything else is.
const COMMON: [&str; 4] = [
    include_str!("../../manifests/namespace.yaml"),
    include_str!("../../manifests/accounts.yaml"),
    include_str!("../../manifests/rbac.yaml"),
    include_str!("../../manifests/bounds.yaml"),
];
const SERVICE: &str = include_str!("../../manifests/service.yaml");
const HOOKS: &str = include_str!("../../manifests/hooks.yaml");

/// Print what is needed to register surefoot in a cluster
///
/// Namespace surefoot-system, a service account each for webhook and controller with the rights they need, the
/// ValidatingAdmissionPolicy that bounds them, and the hooks.
///
/// Without `--url` the hooks call the Service `surefoot-webhook`, which is printed too. What runs behind it (the Deployments of
/// webhook and controller) is not printed: this version has no image yet, it runs outside the cluster, by `--url`.
///
/// The hooks ask only about namespaces that have the label surefoot.dev/guard. Give `--ca` the ca.crt that `surefoot certs` wrote;
/// without it the hooks carry no caBundle, and the API server trusts only what its system trusts.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  surefoot certs certs
  surefoot manifests --url https://127.0.0.1:8443 --ca certs/ca.crt | kubectl apply -f -
  kubectl label namespace shop surefoot.dev/guard=audit     # then warn, then enforce")]
pub(super) struct Manifests {
    /// Register processes that run outside the cluster under this URL, e.g. https://127.0.0.1:8443
    #[arg(long, requires = "ca")]
    url: Option<String>,
    /// CA certificate (PEM) that signed the serving certificate
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Manifests {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let url = self.url.as_deref().map(base_url).transpose()?;
        let ca = self.ca.map(|file| ca_bundle(&file)).transpose()?;
        super::print(&manifests(url.as_deref(), ca.as_deref()))?;
        Ok(Outcome::Fine)
    }
}

/// All documents as one YAML stream.
fn manifests(url: Option<&str>, ca: Option<&str>) -> String {
    let mut documents = COMMON.map(str::to_owned).to_vec();
    if url.is_none() {
        documents.push(SERVICE.to_owned());
    }
    documents.push(hooks(url, ca));
    documents.join("---\n")
}

/// The hooks with their `clientConfig` filled in. Text, not a tree: the comments and the layout of the conditions stay.
fn hooks(url: Option<&str>, ca: Option<&str>) -> String {
    let mut text = String::with_capacity(HOOKS.len() + 8192);
    for line in HOOKS.lines() {
        let Some((indent, service)) = line.split_once("service: {") else {
            let _ = writeln!(text, "{line}");
            continue;
        };
        let path = service.rsplit_once("path: ").map_or("", |(_, rest)| rest.trim_end_matches('}'));
        let _ = match url {
            Some(url) => writeln!(text, "{indent}url: {url}{path}"),
            None => writeln!(text, "{line}"),
        };
        if let Some(ca) = ca {
            let _ = writeln!(text, "{indent}caBundle: {ca}");
        }
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
        let text = manifests(Some("https://127.0.0.1:8443"), Some("Q0E="));
        for path in ["/mutate", "/validate", "/scale"] {
            assert!(
                text.contains(&format!("      url: https://127.0.0.1:8443{path}\n      caBundle: Q0E=\n")),
                "{path}"
            );
        }
        assert!(!text.contains("service: {") && !text.contains("kind: Service\n"), "{text}");
    }

    #[test]
    fn by_service_the_files_are_printed_as_they_are() {
        let text = manifests(None, None);
        assert!(text.contains("kind: Service\n") && text.ends_with(HOOKS) && !text.contains("caBundle"), "{text}");
        assert_eq!(manifests(None, Some("Q0E=")).matches("caBundle: Q0E=").count(), 3);
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
    fn every_file_is_listed_for_kustomize() {
        let kustomization = include_str!("../../manifests/kustomization.yaml");
        for file in ["namespace", "accounts", "rbac", "bounds", "service", "hooks"] {
            assert!(kustomization.contains(&format!("  - {file}.yaml\n")), "{file}");
        }
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
