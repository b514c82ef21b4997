//! The certificates that servers are checked against: those of the system, or those that
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` name.

use rustls::RootCertStore;
use rustls_native_certs::{CertificateResult, load_native_certs};

/// The usual place. Others are tried too.
const USUAL_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// There are no certificates to check a server against.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "there is no certificate to check TLS servers against: {0}; install the package \
     ca-certificates, or name another file with SSL_CERT_FILE or a directory with SSL_CERT_DIR"
)]
pub struct NoCertificates(String);

/// Loads them. What cannot be read beside others that can is logged.
pub(crate) fn load() -> Result<RootCertStore, NoCertificates> {
    let CertificateResult { certs, errors, .. } = load_native_certs();
    let found = certs.len();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certs);
    match (errors.first(), roots.is_empty()) {
        (None, false) => {}
        (Some(error), false) => tracing::warn!(
            %error,
            others = errors.len() - 1,
            "some certificates could not be read; servers with certificates of these authorities will be refused"
        ),
        (Some(error), true) => return Err(NoCertificates(error.to_string())),
        (None, true) if found > 0 => {
            return Err(NoCertificates("none of those found can be used".to_owned()));
        }
        (None, true) => return Err(NoCertificates(format!("{USUAL_FILE} does not exist"))),
    }
    Ok(roots)
}
