//! A self-signed certificate, made for one test: just enough DER for rustls to accept it. Also part
//! of the integration tests.

use std::net::IpAddr;
use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;

const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const PRIME256V1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// A server that proves to be `host`, and the roots that believe it.
pub fn for_host(host: &str) -> (TlsAcceptor, RootCertStore) {
    for_host_until(host, b"491231235959Z")
}

/// The same with a certificate whose time is over.
pub fn expired(host: &str) -> (TlsAcceptor, RootCertStore) {
    for_host_until(host, b"201231235959Z")
}

fn for_host_until(host: &str, until: &[u8]) -> (TlsAcceptor, RootCertStore) {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
    let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).expect("our own key");

    let body = to_be_signed(host, until, key.public_key().as_ref());
    let signature = key.sign(&random, &body).expect("a signature");
    let certificate = der(SEQUENCE, &[&body, &signature_algorithm(), &bits(signature.as_ref())]);
    let certificate = CertificateDer::from(certificate);

    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a well-formed certificate");
    let private = PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec());
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring knows them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], private.into())
        .expect("key and certificate belong together");
    (TlsAcceptor::from(Arc::new(config)), roots)
}

fn to_be_signed(host: &str, until: &[u8], public_key: &[u8]) -> Vec<u8> {
    let version = der(0xa0, &[&der(INTEGER, &[&[2]])]);
    let serial = der(INTEGER, &[&[1]]);
    let attribute =
        der(SEQUENCE, &[&der(OBJECT_ID, &[COMMON_NAME]), &der(UTF8_STRING, &[b"ringback test"])]);
    let name = der(SEQUENCE, &[&der(SET, &[&attribute])]);
    let from = der(UTC_TIME, &[b"200101000000Z"]);
    let until = der(UTC_TIME, &[until]);
    let validity = der(SEQUENCE, &[&from, &until]);
    let key_kind =
        der(SEQUENCE, &[&der(OBJECT_ID, &[EC_PUBLIC_KEY]), &der(OBJECT_ID, &[PRIME256V1])]);
    let key = der(SEQUENCE, &[&key_kind, &bits(public_key)]);
    let names = der(SEQUENCE, &[&general_name(host)]);
    let extension =
        der(SEQUENCE, &[&der(OBJECT_ID, &[SUBJECT_ALT_NAME]), &der(OCTET_STRING, &[&names])]);
    let extensions = der(0xa3, &[&der(SEQUENCE, &[&extension])]);
    der(
        SEQUENCE,
        &[&version, &serial, &signature_algorithm(), &name, &validity, &name, &key, &extensions],
    )
}

fn general_name(host: &str) -> Vec<u8> {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => der(0x87, &[&v4.octets()]),
        Ok(IpAddr::V6(v6)) => der(0x87, &[&v6.octets()]),
        Err(_) => der(0x82, &[host.as_bytes()]),
    }
}

fn signature_algorithm() -> Vec<u8> {
    der(SEQUENCE, &[&der(OBJECT_ID, &[ECDSA_WITH_SHA256])])
}

fn bits(bytes: &[u8]) -> Vec<u8> {
    der(BIT_STRING, &[&[0], bytes])
}

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len();
    let mut encoded = vec![tag];
    // DER wants the shortest form of a length.
    match u16::try_from(length).expect("a small certificate").to_be_bytes() {
        [0, short] if short < 0x80 => encoded.push(short),
        [0, byte] => encoded.extend([0x81, byte]),
        [high, low] => encoded.extend([0x82, high, low]),
    }
    encoded.extend(content);
    encoded
}
