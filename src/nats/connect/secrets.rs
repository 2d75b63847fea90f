//! Credentials and CA certificates: in files, or as the bytes of a Secret.

use std::fmt;
use std::path::PathBuf;

use async_nats::rustls::RootCertStore;
use async_nats::rustls::pki_types::CertificateDer;
use async_nats::rustls::pki_types::pem::PemObject;

use super::ConnectError;

/// A way to authenticate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Auth {
    /// The format of `nsc`'s `.creds`.
    Credentials(Material),
    /// A user name and a password; a line end after either is no part of it.
    UserPassword {
        /// The user name.
        username: Material,
        /// The password.
        password: Material,
    },
}

/// Something secret. `Debug` shows where it is, never what it is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Material {
    /// In a file, read at every connect.
    File(PathBuf),
    /// Here.
    Bytes(Vec<u8>),
}

impl Material {
    pub(super) async fn read(&self, what: &'static str) -> Result<Vec<u8>, ConnectError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::File(path) => tokio::fs::read(path)
                .await
                .map_err(|source| ConnectError::Read {
                    what,
                    path: path.display().to_string(),
                    source,
                }),
        }
    }

    async fn read_text(&self, what: &'static str) -> Result<String, ConnectError> {
        let bytes = self.read(what).await?;
        let text = String::from_utf8(bytes).map_err(|_| ConnectError::Malformed {
            what,
            problem: "it is no UTF-8",
        })?;
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Bytes(_) => f.write_str("Bytes(..)"),
        }
    }
}

pub(super) fn roots(pem: &[u8]) -> Result<RootCertStore, ConnectError> {
    let malformed = |problem| ConnectError::Malformed {
        what: "CA",
        problem,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| malformed("it is no PEM"))?;
        roots
            .add(certificate)
            .map_err(|_| malformed("a certificate in it is not valid"))?;
    }
    if roots.is_empty() {
        return Err(malformed("there is no certificate in it"));
    }
    Ok(roots)
}

/// What this machine trusts; what it cannot read of that is left out.
pub(super) fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

impl Auth {
    /// What the server is told; `nonce` is what it asked to have signed.
    pub(super) async fn answer(&self, nonce: &[u8]) -> Result<async_nats::Auth, ConnectError> {
        let mut answer = async_nats::Auth::new();
        match self {
            Self::UserPassword { username, password } => {
                answer.username = Some(username.read_text("user name").await?);
                answer.password = Some(password.read_text("password").await?);
            }
            Self::Credentials(creds) => {
                let malformed = |problem| ConnectError::Malformed {
                    what: "credentials",
                    problem,
                };
                let text = creds.read_text("credentials").await?;
                let jwt = block(&text, "NATS USER JWT")
                    .ok_or_else(|| malformed("there is no user JWT in them"))?;
                let seed = block(&text, "USER NKEY SEED")
                    .ok_or_else(|| malformed("there is no user seed in them"))?;
                let signature = nkeys::KeyPair::from_seed(seed)
                    .and_then(|pair| pair.sign(nonce))
                    .map_err(|_| malformed("the user seed is not valid"))?;
                answer.jwt = Some(jwt.to_owned());
                answer.signature = Some(signature);
            }
        }
        Ok(answer)
    }
}

/// The line after `-----BEGIN <name>-----`.
fn block<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| line.starts_with("---") && line.contains(&format!("BEGIN {name}")))?;
    lines.find(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let auth = Auth::UserPassword {
            username: Material::Bytes(b"alice".to_vec()),
            password: Material::Bytes(b"hunter2".to_vec()),
        };
        let shown = format!("{auth:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("alice"));
    }

    #[test]
    fn a_ca_without_a_certificate_is_refused() {
        assert!(matches!(
            roots(b"not a certificate"),
            Err(ConnectError::Malformed { what: "CA", .. })
        ));
    }

    #[tokio::test]
    async fn a_password_file_may_end_with_a_line_end() {
        let material = Material::Bytes(b"hunter2\r\n".to_vec());
        assert_eq!(material.read_text("password").await.unwrap(), "hunter2");
    }

    #[tokio::test]
    async fn credentials_without_a_seed_are_refused_by_name() {
        let creds = b"-----BEGIN NATS USER JWT-----\nabc\n------END NATS USER JWT------\n";
        let auth = Auth::Credentials(Material::Bytes(creds.to_vec()));
        assert!(matches!(
            auth.answer(b"nonce").await,
            Err(ConnectError::Malformed {
                problem: "there is no user seed in them",
                ..
            })
        ));
    }
}
