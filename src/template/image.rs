//! References to images, as far as defaults depend on them: is it `latest`?

/// Whether the kubelet would pull the tag `latest`: said so, or neither tag nor digest. A text that is no reference is
/// not: the API server, too, looks away from the error.
///
/// The grammar is that of github.com/distribution/reference, which the API server uses.
pub(super) fn is_latest(image: &str) -> bool {
    is_latest_of(image).unwrap_or(false)
}

/// `None`: it is no reference.
fn is_latest_of(image: &str) -> Option<bool> {
    let is_bare_digest = image.len() == 64 && image.bytes().all(is_hex);
    let (domain, rest) = match image.split_once('/') {
        Some((first, rest)) if is_registry(first) => (Some(first), rest),
        _ => (None, image),
    };
    let (rest, digest) = match rest.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (rest, None),
    };
    let start_of_last = rest.rfind('/').map_or(0, |at| at + 1);
    let (path, tag) = match rest[start_of_last..].split_once(':') {
        Some((last, tag)) => (&rest[..start_of_last + last.len()], Some(tag)),
        None => (rest, None),
    };
    let is_reference = !is_bare_digest
        && domain.is_none_or(|domain| is_domain(domain) || is_component(domain))
        && path.split('/').all(is_component)
        && full_length(domain, path) <= 255
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest);
    is_reference.then(|| tag == Some("latest") || (tag.is_none() && digest.is_none()))
}

/// Whether what is before the first slash names a registry and not a part of the path.
fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.chars().any(char::is_uppercase)
}

/// The length of the path, with what Docker Hub adds to it.
fn full_length(domain: Option<&str>, path: &str) -> usize {
    let on_hub = domain.is_none_or(|domain| matches!(domain, "docker.io" | "index.docker.io"));
    let is_path = domain.is_some_and(|domain| !is_domain(domain));
    path.len()
        + if on_hub && !path.contains('/') { "library/".len() } else { 0 }
        + domain.filter(|_| is_path).map_or(0, |domain| domain.len() + 1)
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let is_label = |label: &str| {
        let label = label.as_bytes();
        label.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
            && [label.first(), label.last()].iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
    };
    let is_address = |host: &str| {
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).is_some_and(|address| {
            !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':')
        })
    };
    port.is_none_or(|port| !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit()))
        && (host.split('.').all(is_label) || is_address(host))
}

/// Lower-case letters and digits, with single separators between: `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator = |run: &str| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|byte| byte == b'-');
    component.starts_with(is_alphanumeric)
        && component.ends_with(is_alphanumeric)
        && component.split(is_alphanumeric).all(is_separator)
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = tag.as_bytes();
    bytes.first().is_some_and(|first| is_word(*first))
        && bytes.len() <= 128
        && bytes.iter().all(|byte| is_word(*byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        let length = match algorithm {
            "sha256" => 64,
            "sha384" => 96,
            "sha512" => 128,
            _ => return false,
        };
        hex.len() == length && hex.bytes().all(is_hex)
    })
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_is_a_tag_or_the_lack_of_one() {
        let digest = format!("@sha256:{}", "0123456789abcdef".repeat(4));
        let rows = [
            ("model", Some(true)),
            ("model:latest", Some(true)),
            ("model:1.0", Some(false)),
            ("registry.local:5000/a/model", Some(true)),
            ("registry.local:5000/a/model:2", Some(false)),
            ("[::1]:5000/model", Some(true)),
            ("localhost/model:latest", Some(true)),
            (&format!("model{digest}"), Some(false)),
            (&format!("model:latest{digest}"), Some(true)),
            ("a__b/c--d.e_f", Some(true)),
            ("", None),
            ("Model", None),
            ("a..b", None),
            ("model:", None),
            ("model@sha256:12", None),
            (&digest[8..], None),
            ("registry.local:x/model", None),
            (&"x".repeat(248), None),
        ];
        for (image, want) in rows {
            assert_eq!(is_latest_of(image), want, "{image}");
        }
    }
}
