//! TLS through a tunnel. Its near end is an address of this machine, which no server has in its
//! certificate; so the certificate is checked for the name that the URL had.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use async_nats::rustls::client::WebPkiServerVerifier;
use async_nats::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use async_nats::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use async_nats::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::ConnectError;

/// Where tunnels begin.
const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Trusts what `roots` signed for the server's name; behind a tunnel, for one of `hosts`.
pub(super) fn config(roots: RootCertStore, hosts: &[String]) -> Result<ClientConfig, ConnectError> {
    let malformed = |_| ConnectError::Malformed {
        what: "CA",
        problem: "no certificate can be checked with it",
    };
    let usual = WebPkiServerVerifier::builder(Arc::new(roots)).build();
    let names = hosts.iter().filter_map(|host| {
        let host = host.trim_end_matches('.').to_owned();
        ServerName::try_from(host).ok()
    });
    let verifier = Behind {
        names: names.collect(),
        usual: usual.map_err(malformed)?,
    };
    Ok(ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

#[derive(Debug)]
struct Behind {
    names: Vec<ServerName<'static>>,
    usual: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Behind {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify = |name: &ServerName<'_>| {
            let usual = &self.usual;
            usual.verify_server_cert(certificate, intermediates, name, ocsp, now)
        };
        if *server_name != ServerName::IpAddress(NEAR.into()) {
            return verify(server_name);
        }
        let mut verdict = Err(Error::InvalidCertificate(CertificateError::NotValidForName));
        for name in &self.names {
            verdict = verify(name);
            if verdict.is_ok() {
                break;
            }
        }
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let usual = &self.usual;
        usual.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let usual = &self.usual;
        usual.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}
