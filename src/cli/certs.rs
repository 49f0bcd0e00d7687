//! `surefoot certs`: a CA and a serving pair for development, and for processes that run outside the cluster.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use jiff::{Span, Timestamp, tz::TimeZone};

use super::Outcome;
use crate::{
    certificates::{self, Issued},
    template::keys,
};

/// Make development certificates: a CA and a serving pair for `surefoot webhook`
///
/// Valid for localhost, 127.0.0.1, ::1, the Service surefoot-webhook in surefoot-system and each --host, for one year. The CA's key is thrown
/// away, so nobody can sign with it later: for new certificates remove the three files and run this again, then register the
/// hooks again with the new ca.crt.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  surefoot certs certs
  surefoot webhook --listen 127.0.0.1:8443 --tls-cert certs/tls.crt --tls-key certs/tls.key
  surefoot manifests --url https://127.0.0.1:8443 --ca certs/ca.crt | kubectl apply -f -

Where the API server runs elsewhere:
  surefoot certs certs --host webhook.example.com --host 192.0.2.7")]
pub(super) struct Certs {
    /// Folder for ca.crt, tls.crt and tls.key; made if it is not there
    dir: PathBuf,
    /// Another name or address that the API server reaches the webhook by; may be given several times
    #[arg(long = "host", value_name = "NAME|ADDRESS")]
    hosts: Vec<String>,
}

const CA: &str = "ca.crt";
const CERT: &str = "tls.crt";
const KEY: &str = "tls.key";

impl Certs {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let dir = self.dir;
        let there: Vec<String> = [CA, CERT, KEY]
            .into_iter()
            .map(|name| dir.join(name))
            .filter(|file| file.symlink_metadata().is_ok())
            .map(|file| file.display().to_string())
            .collect();
        anyhow::ensure!(
            there.is_empty(),
            "{} would be overwritten, nothing was written; if they are no longer in use: rm {}",
            there.join(" and "),
            there.join(" ")
        );
        let pair = Pair::make(&self.hosts, Timestamp::now()).context("cannot make certificates")?;
        fs::create_dir_all(&dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
        write(&dir.join(KEY), &pair.key, 0o600)?;
        write(&dir.join(CERT), &pair.cert, 0o644)?;
        write(&dir.join(CA), &pair.ca, 0o644)?;
        let d = dir.display();
        super::print(&format!(
            "{d}/ca.crt   give it to `surefoot manifests --ca`\n{d}/tls.crt  serving certificate, until {}\n\
             {d}/tls.key  its key; keep it to yourself\n",
            pair.until
        ))?;
        Ok(Outcome::Fine)
    }
}

/// PEM texts.
struct Pair {
    ca: String,
    cert: String,
    key: String,
    until: jiff::civil::Date,
}

impl Pair {
    fn make(hosts: &[String], now: Timestamp) -> anyhow::Result<Self> {
        // Whole days, from yesterday: clocks differ.
        let today = now.to_zoned(TimeZone::UTC).date();
        let (from, until) = (today.yesterday()?, today.checked_add(Span::new().days(365))?);
        let start = |day: jiff::civil::Date| anyhow::Ok(day.to_zoned(TimeZone::UTC)?.timestamp());
        let mut names = certificates::service_names(keys::NAMESPACE, keys::WEBHOOK_ACCOUNT);
        names.push("localhost".to_owned());
        names.extend(
            [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].map(|address| address.to_string()),
        );
        names.extend(hosts.iter().cloned());
        let Issued { ca, cert, key } = Issued::new(&names, start(from)?, start(until)?)?;
        Ok(Self { ca, cert, key, until })
    }
}

/// `create_new`: never through a link, never over a file that came in between.
fn write(file: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let name = file.display();
    let mut opened =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(file).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                anyhow::anyhow!("{name} came into being meanwhile; remove it and run this again")
            }
            _ => anyhow::Error::new(error).context(format!("cannot write {name}")),
        })?;
    opened.write_all(text.as_bytes()).with_context(|| format!("cannot write {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn writes_three_files_once_and_keeps_the_key_private() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("new/certs");
        Certs { dir: dir.clone(), hosts: Vec::new() }.run().unwrap();
        assert_eq!(fs::metadata(dir.join(KEY)).unwrap().permissions().mode() & 0o777, 0o600);
        let before = fs::read(dir.join(CERT)).unwrap();

        let error = Certs { dir: dir.clone(), hosts: Vec::new() }.run().unwrap_err().to_string();
        assert!(error.contains("would be overwritten") && error.contains("rm "), "{error}");
        assert_eq!(fs::read(dir.join(CERT)).unwrap(), before);
    }

    #[test]
    fn the_leaf_is_signed_by_the_ca_and_names_the_service() {
        let pair = Pair::make(&["gpu.example.com".into(), "192.0.2.7".into()], "2026-11-22T12:00:00Z".parse().unwrap())
            .unwrap();
        let der = |pem: &str| x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents;
        let (ca, leaf) = (der(&pair.ca), der(&pair.cert));
        let ca = x509_parser::parse_x509_certificate(&ca).unwrap().1;
        let leaf = x509_parser::parse_x509_certificate(&leaf).unwrap().1;
        assert_eq!(leaf.issuer(), ca.subject());
        assert_eq!(pair.until.to_string(), "2027-11-22");
        let names = format!("{:?}", leaf.subject_alternative_name().unwrap().unwrap().value.general_names);
        for name in [
            "gpu.example.com",
            "localhost",
            "surefoot-webhook.surefoot-system.svc",
            "surefoot-webhook.surefoot-system.svc.cluster.local",
        ] {
            assert!(names.contains(&format!("DNSName({name:?})")), "{names}");
        }
        assert_eq!(names.matches("IPAddress").count(), 3, "{names}");
    }
}
