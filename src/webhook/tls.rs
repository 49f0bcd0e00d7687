//! The serving certificate: loaded from two files, checked as a pair, replaced while connections go on, offered with
//! http/1.1 only.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use jiff::Timestamp;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// Why there is no serving certificate. Each names the file to look at.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file is not there, or may not be read.
    #[error("cannot read {file}: {error}; `surefoot certs DIR` makes a development pair", file = .file.display())]
    Unreadable {
        /// As given.
        file: PathBuf,
        /// From the system.
        error: std::io::Error,
    },
    /// The file holds something else.
    #[error("{file} holds no PEM {wanted}", file = .file.display())]
    NotPem {
        /// As given.
        file: PathBuf,
        /// `certificate` or `private key`.
        wanted: &'static str,
    },
    /// The two files do not belong together.
    #[error("{key} is not the key of {cert}: {error}", key = .key.display(), cert = .cert.display())]
    Mismatch {
        /// Certificate file.
        cert: PathBuf,
        /// Key file.
        key: PathBuf,
        /// From rustls.
        error: rustls::Error,
    },
    /// The certificate cannot be served now.
    #[error("the certificate in {file} {what}", file = .file.display())]
    Unusable {
        /// Certificate file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// A certificate with its key, and when it ends.
#[derive(Debug)]
pub struct Pair {
    certified: Arc<CertifiedKey>,
    /// Nobody accepts it after this.
    pub until: Timestamp,
}

/// Reads the pair in these two files, and checks that it can be served now.
pub fn load(cert: &Path, key: &Path) -> Result<Pair, TlsError> {
    let chain = CertificateDer::pem_slice_iter(&read(cert)?).collect::<Result<Vec<_>, _>>().unwrap_or_default();
    let Some(leaf) = chain.first() else {
        return Err(TlsError::NotPem { file: cert.to_owned(), wanted: "certificate" });
    };
    let until = check_validity(cert, leaf)?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|_| TlsError::NotPem { file: key.to_owned(), wanted: "private key" })?;
    let certified = CertifiedKey::from_der(chain, private, &ring::default_provider())
        .map_err(|error| TlsError::Mismatch { cert: cert.to_owned(), key: key.to_owned(), error })?;
    Ok(Pair { certified: Arc::new(certified), until })
}

/// The pair that new connections are shown. Those that are open go on with the one that they began with.
#[derive(Debug)]
pub struct Served(RwLock<Arc<CertifiedKey>>);

impl Served {
    /// Shows this one to begin with.
    pub fn new(pair: &Pair) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::clone(&pair.certified))))
    }

    /// From now on this one is shown.
    pub fn swap(&self, pair: &Pair) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&pair.certified);
    }

    /// What a server needs to show it.
    ///
    /// Only http/1.1 is offered: an API server that may use HTTP/2 pins one connection and sends all reviews to one pod.
    pub fn config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Self>::clone(self));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|error| TlsError::Unreadable { file: file.to_owned(), error })
}

/// A server that starts with a certificate nobody accepts looks ready and answers nothing. Gives its end.
fn check_validity(file: &Path, leaf: &CertificateDer<'_>) -> Result<Timestamp, TlsError> {
    let unusable = |what| TlsError::Unusable { file: file.to_owned(), what };
    let (_, parsed) =
        x509_parser::parse_x509_certificate(leaf).map_err(|error| unusable(format!("cannot be parsed: {error}")))?;
    let now = Timestamp::now().as_second();
    let validity = parsed.validity();
    if now > validity.not_after.timestamp() {
        return Err(unusable(format!("expired on {}; make a new one", validity.not_after)));
    }
    if now < validity.not_before.timestamp() {
        return Err(unusable(format!("is valid only from {}; is this machine's clock right?", validity.not_before)));
    }
    // The last year that a timestamp knows is the last that a certificate can name.
    Ok(Timestamp::from_second(validity.not_after.timestamp()).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn pair(until: i32) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn what_cannot_be_served_is_said_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = pair(2100);
        let (old, old_key) = pair(2021);
        for (name, text) in [
            ("tls.crt", cert.as_str()),
            ("tls.key", &key),
            ("old.crt", &old),
            ("old.key", &old_key),
            ("other.key", &pair(2100).1),
            ("empty", ""),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let load = |cert: &str, key: &str| load(&dir.path().join(cert), &dir.path().join(key));
        let good = load("tls.crt", "tls.key").unwrap();
        assert_eq!(good.until.to_string(), "2100-01-01T00:00:00Z");
        assert_eq!(Served::new(&good).config().unwrap().alpn_protocols, [b"http/1.1"]);
        for (cert, key, says) in [
            ("none.crt", "tls.key", "none.crt: No such file"),
            ("tls.crt", "none.key", "none.key: No such file"),
            ("empty", "tls.key", "empty holds no PEM certificate"),
            ("tls.key", "tls.key", "tls.key holds no PEM certificate"),
            ("tls.crt", "tls.crt", "tls.crt holds no PEM private key"),
            ("tls.crt", "other.key", "other.key is not the key of"),
            ("old.crt", "old.key", "old.crt expired on Jan  1"),
        ] {
            let error = load(cert, key).unwrap_err().to_string();
            assert!(error.contains(says), "{cert}, {key}: {error}");
        }
    }
}
