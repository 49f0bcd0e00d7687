//! surefoot's own image as an OCI archive, which containerd, podman and skopeo read, and `docker load` too.

use std::io::Write;

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

use super::archive::{Layer, Tar, architecture, sha256};

/// What the manifests call it. `localhost` is where podman puts what is built locally, and what no node can pull from
/// anybody else: whoever has a registry names it by `surefoot manifests --image` or kustomize's `images`.
pub(crate) const NAME: &str = concat!("localhost/surefoot:", env!("CARGO_PKG_VERSION"));

/// Nobody's: not root's, and no user of the node.
const USER: &str = "65532:65532";

/// The archive for this program, which has to be linked statically: there is nothing else in the image.
pub(crate) fn archive(program: &[u8]) -> Result<Vec<u8>> {
    let layer = Layer::new(&[("surefoot", program, 0o755)])?;
    let packed = packed(&layer.tar)?;
    let config = serde_json::to_vec(&json!({
        "architecture": architecture(),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "User": USER,
            "Entrypoint": ["/surefoot"],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": "surefoot",
                "org.opencontainers.image.description": env!("CARGO_PKG_DESCRIPTION"),
                "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
                "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "make image"}],
    }))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described("application/vnd.oci.image.config.v1+json", &config),
        "layers": [described("application/vnd.oci.image.layer.v1.tar+gzip", &packed)],
    }))?;
    let mut entry = described(MANIFEST, &manifest);
    entry["platform"] = json!({"architecture": architecture(), "os": "linux"});
    entry["annotations"] = json!({
        "io.containerd.image.name": NAME,
        "org.opencontainers.image.ref.name": env!("CARGO_PKG_VERSION"),
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    });

    let mut blobs: Vec<_> = [&config, &manifest, &packed].map(|blob| (blob_path(blob), blob.as_slice())).into();
    blobs.sort();
    // Docker before version 25 reads this instead of the index.
    let for_docker = json!([
        {"Config": blob_path(&config), "RepoTags": [NAME], "Layers": [blob_path(&packed)]},
    ]);
    let mut tar = Tar::default();
    for (path, blob) in blobs {
        tar.file(&path, blob, 0o644)?;
    }
    tar.file("index.json", &serde_json::to_vec(&index)?, 0o644)?;
    tar.file("manifest.json", &serde_json::to_vec(&for_docker)?, 0o644)?;
    tar.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    Ok(tar.finish())
}

/// gzip, without a name or a time in its head: a third of what every node would pull otherwise.
fn packed(tar: &[u8]) -> Result<Vec<u8>> {
    let mut packing = GzBuilder::new().write(Vec::new(), Compression::best());
    packing.write_all(tar)?;
    Ok(packing.finish()?)
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn described(kind: &str, blob: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": format!("sha256:{}", sha256(blob)), "size": blob.len()})
}

fn blob_path(blob: &[u8]) -> String {
    format!("blobs/sha256/{}", sha256(blob))
}
