//! The webhook's serving certificate: made, and looked at to decide what to do about it. **Pure** but for the randomness
//! that keys are made of: no clock, no file, no client. `controller::installed` carries out what is decided here,
//! `surefoot certs` makes a pair for processes beside the cluster.
//!
//! Each certificate is signed by a CA of its own, whose key is thrown away at once: nobody can sign with what lies in the
//! Secret, be it stolen. So the hooks learn of a new CA *before* the certificate is shown that it signed, and go on trusting
//! the one before for as long as it is valid.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    sign::CertifiedKey,
};

/// Clocks differ: a certificate is valid from that long before it was made, or from a twelfth of its life.
const SKEW: SignedDuration = SignedDuration::from_hours(1);

/// A serving pair and the CA that signed it, as PEM texts.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Certificate of the CA, whose key nobody has.
    pub ca: String,
    /// Serving certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

impl Issued {
    /// For these names and addresses, the first of which is the one that is asked for. Fails when one of them is neither.
    pub fn new(names: &[String], from: Timestamp, until: Timestamp) -> Result<Self, rcgen::Error> {
        let dates = |params: &mut CertificateParams| {
            let date = |at: Timestamp| {
                date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(at.as_second()).unwrap_or_default())
            };
            (params.not_before, params.not_after) = (date(from), date(until));
        };
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::default();
        ca.distinguished_name = named("surefoot CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        dates(&mut ca);
        let ca_cert = ca.self_signed(&ca_key)?;

        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(names)?;
        leaf.distinguished_name = named("surefoot webhook");
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        dates(&mut leaf);
        let cert = leaf.signed_by(&key, &Issuer::new(ca, ca_key))?;
        Ok(Self { ca: ca_cert.pem(), cert: cert.pem(), key: key.serialize_pem() })
    }

    /// As the controller makes it: for the Service of this name, for `lifetime` from `now` on.
    pub fn for_service(
        namespace: &str,
        service: &str,
        lifetime: SignedDuration,
        now: Timestamp,
    ) -> Result<Self, rcgen::Error> {
        Self::new(&service_names(namespace, service), now - SKEW.min(lifetime / 12), now + lifetime)
    }
}

/// What a Service is called inside the cluster. The API server asks for the first.
pub fn service_names(namespace: &str, service: &str) -> Vec<String> {
    let name = format!("{service}.{namespace}.svc");
    vec![name.clone(), format!("{name}.cluster.local")]
}

/// What is in the Secret, as it lies there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stored<'a> {
    /// `ca.crt`: the CAs that hooks are to trust, newest first.
    pub ca: &'a [u8],
    /// `tls.crt`.
    pub cert: &'a [u8],
    /// `tls.key`.
    pub key: &'a [u8],
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// A new certificate, and why: registered with the hooks first, stored then.
    Issue(String),
    /// The hooks trust something else than what is stored: they are told.
    Publish,
    /// Nothing, until the certificate is due.
    Wait(Timestamp),
}

/// Decides by the Secret (`None`: there is none), by what the hooks trust (`caBundle`s, decoded), and by the time.
pub fn decide(stored: Option<Stored<'_>>, trusted: &[Vec<u8>], name: &str, now: Timestamp) -> Need {
    let Some(stored) = stored else { return Need::Issue("there is none yet".to_owned()) };
    match due(stored, name, now) {
        Err(wrong) => Need::Issue(wrong),
        Ok(due) if due <= now => Need::Issue("two thirds of its life are over".to_owned()),
        Ok(_) if trusted.iter().any(|bundle| bundle != stored.ca) => Need::Publish,
        Ok(due) => Need::Wait(due),
    }
}

/// What the hooks are to trust with a new certificate: its CA, and of those `before` it (what is stored, what the hooks trust)
/// each that is still valid, because its certificate may still be shown.
pub fn bundle<'a>(new: &Issued, before: impl IntoIterator<Item = &'a [u8]>, now: Timestamp) -> String {
    let (mut text, mut taken) = (new.ca.clone(), Vec::new());
    for der in before.into_iter().flat_map(certificates) {
        if validity(&der).is_some_and(|(_, until)| now < until) && !taken.contains(&der) {
            text.push_str(&pem(&der));
            taken.push(der);
        }
    }
    text
}

/// When this pair is to be replaced, or why no API server that trusts its CA takes it now: what is wrong, for a sentence
/// that begins with "the stored one".
pub fn due(stored: Stored<'_>, name: &str, now: Timestamp) -> Result<Timestamp, String> {
    let chain = certificates(stored.cert);
    let leaf = chain.first().ok_or("tls.crt holds no certificate")?;
    let key = PrivateKeyDer::from_pem_slice(stored.key).map_err(|_| "tls.key holds no key")?;
    let provider = Arc::new(ring::default_provider());
    CertifiedKey::from_der(chain.clone(), key, &provider).map_err(|_| "tls.key is not the key of tls.crt")?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(stored.ca));
    let trusted = WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
        .build()
        .map_err(|_| "ca.crt holds no certificate")?;
    let asked = ServerName::try_from(name).map_err(|_| format!("nobody can be called {name}"))?;
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    trusted
        .verify_server_cert(leaf, &chain[1..], &asked, &[], UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
        .map_err(|error| format!("is not valid: {error}"))?;
    let (from, until) = validity(leaf).ok_or("tls.crt has no dates")?;
    let seconds = until.duration_since(from).as_secs();
    Ok(from + SignedDuration::from_secs(seconds * 2 / 3))
}

/// Until when the longest-lived certificate of a PEM text is valid; `None`: it holds none.
pub fn until(pem: &[u8]) -> Option<Timestamp> {
    certificates(pem).iter().filter_map(|der| validity(der)).map(|(_, until)| until).max()
}

/// All certificates of a PEM text; those that cannot be read are left out.
fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect()
}

/// From when until when.
fn validity(der: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let time = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Some((time(certificate.validity().not_before)?, time(certificate.validity().not_after)?))
}

fn pem(der: &CertificateDer<'_>) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "surefoot-webhook.surefoot-system.svc";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    /// Valid from 100 s before 0 to 1200 s.
    fn issued() -> Issued {
        Issued::for_service("surefoot-system", "surefoot-webhook", SignedDuration::from_secs(1200), at(0)).unwrap()
    }

    fn stored(issued: &Issued) -> Stored<'_> {
        Stored { ca: issued.ca.as_bytes(), cert: issued.cert.as_bytes(), key: issued.key.as_bytes() }
    }

    #[test]
    fn what_is_to_be_done() {
        let (mine, other) = (issued(), issued());
        let mine = stored(&mine);
        let trusts = |bundle: &[u8]| vec![bundle.to_vec(), bundle.to_vec()];
        let all = trusts(mine.ca);
        // A hundred seconds before 0, and two thirds of 1300 s.
        let wait = Need::Wait(at(766));
        assert_eq!(decide(Some(mine), &all, NAME, at(0)), wait);
        assert_eq!(decide(Some(mine), &all, NAME, at(765)), wait);
        assert_eq!(decide(Some(mine), &[], NAME, at(0)), wait);
        for wiped in [trusts(b""), trusts(other.ca.as_bytes()), vec![mine.ca.to_vec(), Vec::new()]] {
            assert_eq!(decide(Some(mine), &wiped, NAME, at(0)), Need::Publish);
        }
        let other = stored(&other);
        for (stored, name, now, why) in [
            (None, NAME, 0, "there is none yet"),
            (Some(mine), NAME, 766, "two thirds"),
            (Some(mine), NAME, 1201, "is not valid: invalid peer certificate: certificate expired"),
            (Some(mine), NAME, -101, "is not valid: invalid peer certificate: certificate not valid yet"),
            (Some(mine), "other.surefoot-system.svc", 0, "not valid for name"),
            (Some(Stored { key: other.key, ..mine }), NAME, 0, "tls.key is not the key of tls.crt"),
            (Some(Stored { ca: other.ca, ..mine }), NAME, 0, "is not valid"),
            (Some(Stored { ca: b"", ..mine }), NAME, 0, "ca.crt holds no certificate"),
            (Some(Stored { key: b"", ..mine }), NAME, 0, "tls.key holds no key"),
            (Some(Stored { cert: b"", ..mine }), NAME, 0, "tls.crt holds no certificate"),
            (Some(Stored { cert: b"\xff\x00", ..mine }), NAME, 0, "tls.crt holds no certificate"),
            (Some(Stored { cert: mine.key, ..mine }), NAME, 0, "tls.crt holds no certificate"),
            (Some(Stored::default()), NAME, 0, "tls.crt holds no certificate"),
        ] {
            match decide(stored, &all, name, at(now)) {
                Need::Issue(said) => assert!(said.contains(why), "{said}, not {why}"),
                need => panic!("{need:?}, not {why}"),
            }
        }
    }

    /// While the kubelet brings the new one to the webhook, the one before is still shown.
    #[test]
    fn the_ca_before_is_trusted_as_long_as_it_is_valid() {
        let (old, new) = (issued(), issued());
        let both = bundle(&new, [old.ca.as_bytes()], at(800));
        assert_eq!(both, format!("{}{}", new.ca, old.ca));
        for pair in [&old, &new] {
            due(Stored { ca: both.as_bytes(), ..stored(pair) }, NAME, at(800)).unwrap();
        }
        assert_eq!(bundle(&new, [old.ca.as_bytes(), b"rubbish", both.as_bytes()], at(800)).matches("BEGIN").count(), 3);
        assert_eq!(bundle(&new, [old.ca.as_bytes(), old.ca.as_bytes()], at(800)), both);
        assert_eq!(bundle(&new, [old.ca.as_bytes()], at(1200)), new.ca);
        assert_eq!(bundle(&new, [], at(800)), new.ca);
    }

    #[test]
    fn a_lifetime_of_seconds_begins_now_too() {
        let short = Issued::for_service("a", "b", SignedDuration::from_secs(12), at(0)).unwrap();
        assert_eq!(due(stored(&short), "b.a.svc", at(0)), Ok(at(-1 + 8)));
        assert_eq!(due(stored(&short), "b.a.svc.cluster.local", at(0)), Ok(at(7)));
    }
}
