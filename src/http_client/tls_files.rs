//! The files of a cloud's TLS settings. The bytes whose digest tells one trust from another are the bytes in use.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::TrustDigest;
use crate::error::{Code, Error, Result, reason};
use crate::model::{Cloud, Tls};

/// One of the files, with the option or variable that names it.
pub(super) struct Named<'t> {
    pub(super) path: &'t Path,
    source: Option<&'t str>,
}

/// The CA bundle, client certificate and key of a cloud; none where nothing speaks TLS.
pub(super) fn named(cloud: &Cloud) -> [Option<Named<'_>>; 3] {
    let Tls { ca_file, cert_file, key_file, sources, .. } = &cloud.tls;
    let named = |path: &'_ Option<PathBuf>| path.is_some() && cloud.speaks_tls();
    let of = |path, source| Named { path, source };
    [
        ca_file.as_deref().filter(|_| named(ca_file)).map(|path| of(path, sources.ca_file.as_deref())),
        cert_file.as_deref().filter(|_| named(cert_file)).map(|path| of(path, sources.cert_file.as_deref())),
        key_file.as_deref().filter(|_| named(key_file)).map(|path| of(path, sources.key_file.as_deref())),
    ]
}

impl Named<'_> {
    /// The content of the file; of a directory, as requests has it, that of the files which OpenSSL finds by hash.
    pub(super) fn read(&self) -> Result<Vec<u8>> {
        if self.path.is_dir() {
            return self.read_directory();
        }
        fs::read(self.path).map_err(|error| self.unreadable(&reason(&error)))
    }

    fn read_directory(&self) -> Result<Vec<u8>> {
        let entries = fs::read_dir(self.path).map_err(|error| self.unreadable(&reason(&error)))?;
        let mut files: Vec<_> =
            entries.flatten().map(|entry| entry.path()).filter(|path| is_hash(path)).collect();
        files.sort();
        if files.is_empty() {
            return Err(self.unreadable("no file there has a hash for a name (openssl rehash)"));
        }
        let mut all = Vec::new();
        for file in files {
            all.extend(fs::read(file).map_err(|error| self.unreadable(&reason(&error)))?);
            all.push(b'\n');
        }
        Ok(all)
    }

    /// A stamp that changes with the file; none for a directory, whose links may lead anywhere.
    pub(super) fn stamp(&self) -> Result<Option<(u64, u64, i64, i64)>> {
        let meta = fs::metadata(self.path).map_err(|error| self.unreadable(&reason(&error)))?;
        Ok((!meta.is_dir()).then(|| (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec())))
    }

    /// An error about it, which says where the user named it.
    pub(super) fn unreadable(&self, why: &str) -> Error {
        let path = self.path.display();
        let (source, remedy) = match self.source {
            Some(source) => (format!("{source}: "), format!("correct {source}")),
            None => (String::new(), "correct cacert, cert or key of the cloud's entry in clouds.yaml".into()),
        };
        Error::new(Code::InvalidConfig, format!("{source}{path}: {why}")).remedy(remedy)
    }
}

/// `9d66eef0.0`: eight hexadecimal digits and a number (`X509_LOOKUP_hash_dir(3)`).
fn is_hash(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('.'));
    name.is_some_and(|(hash, number)| {
        hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) && number.parse::<u32>().is_ok()
    })
}

/// Tells apart who is trusted, and who we are.
pub(super) fn trust(digests: [Option<[u8; 32]>; 3]) -> TrustDigest {
    let mut hash = Sha256::new();
    for digest in digests {
        hash.update(digest.unwrap_or_default());
    }
    hash.finalize().into()
}
