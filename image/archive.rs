//! Tarballs that hold nothing but their content: plain files, sorted by whoever writes them, owned by root, made at the
//! epoch. The same content is the same tarball, and the same image.

use anyhow::Result;
use sha2::{Digest, Sha256};

/// A layer of an image: an uncompressed tarball and its digest.
pub(crate) struct Layer {
    pub(crate) tar: Vec<u8>,
    /// SHA-256, in hexadecimal.
    pub(crate) digest: String,
}

impl Layer {
    /// Of files: name, content, mode.
    pub(crate) fn new(files: &[(&str, &[u8], u32)]) -> Result<Self> {
        let mut tar = Tar::default();
        for (name, content, mode) in files {
            tar.file(name, content, *mode)?;
        }
        let tar = tar.finish();
        Ok(Self { digest: sha256(&tar), tar })
    }
}

/// A tarball in the ustar format.
#[derive(Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    /// Adds a file; its name has at most 100 bytes.
    pub(crate) fn file(&mut self, name: &str, content: &[u8], mode: u32) -> Result<()> {
        let mut header = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        anyhow::ensure!(name.len() <= 100, "{name} does not fit a tar header");
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}\0{:07o}\0{:07o}\0{:011o}\0{:011o}\0", 0, 0, content.len(), 0).as_bytes());
        // The sum is taken with its own field as spaces.
        put(148, b"        0");
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        Ok(())
    }

    /// The whole tarball.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// What blobs and layers are called by.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Go's name of the machine this runs on, which is the images'.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
