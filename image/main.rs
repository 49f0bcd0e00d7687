//! The end of `make image`: writes the archive of the image for a program that was built, and the list of what is in it.

mod archive;
mod sbom;
mod surefoot;

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result, bail, ensure};

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [program, metadata, folder] = arguments.as_slice() else { bail!("usage: image PROGRAM METADATA FOLDER") };
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    ensure!(!loads_others(&bytes), "{} is linked dynamically, the image would not run", program.display());
    let metadata = fs::read(metadata).with_context(|| format!("cannot read {}", metadata.display()))?;
    let sbom = sbom::sbom(&serde_json::from_slice(&metadata)?)?;
    let archive = surefoot::archive(&bytes)?;
    let write = |name: &str, content: &[u8]| {
        let file = folder.join(name);
        fs::write(&file, content).with_context(|| format!("cannot write {}", file.display())).map(|()| file)
    };
    println!("image   {}", write("surefoot.tar", &archive)?.display());
    println!("name    {}", surefoot::NAME);
    println!("sha256  {}", archive::sha256(&archive));
    println!("size    {:.1} MB", archive.len() as f64 / 1e6);
    println!("SBOM    {}", write("surefoot.cdx.json", &serde_json::to_vec_pretty(&sbom)?)?.display());
    Ok(())
}

/// Whether the program names an interpreter, which would have to be in the image too (PT_INTERP, in a 64-bit ELF file).
fn loads_others(elf: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, size: usize| {
        let bytes = elf.get(at..at + size).unwrap_or_default();
        bytes.iter().rev().fold(0_usize, |sum, &byte| sum << 8 | usize::from(byte))
    };
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).any(|index| number(table + index * size, 4) == INTERPRETER as usize)
}
