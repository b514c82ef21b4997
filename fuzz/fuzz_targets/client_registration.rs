//! Z05: what is registered is what the client is told, and could be registered again.
#![no_main]

use fuzz::{Stage, TestServer, block_on, patient_server, request};
use http::{Method, header};
use libfuzzer_sys::fuzz_target;
use protocol::oauth::client::Registration;

thread_local! {
    static STAGE: Stage<TestServer> = const { Stage::new(|| patient_server(&[("one", "/mcp")])) };
}

fuzz_target!(
    |body: &[u8]| STAGE.with(|stage| stage.judge(|server| block_on(async {
        let register = async |body: Vec<u8>| {
            let request = request(Method::POST, "/register")
                .header(header::CONTENT_TYPE, "application/json")
                .body(body.into())
                .expect("a request like any other");
            server.send(request).await
        };
        let before = server.store.accesses();
        let answer = register(body.to_vec()).await;
        match Registration::parse(body, &[]) {
            Ok(Registration { metadata, .. }) => {
                let told = answer.expect(201).body;
                assert_eq!(
                    Registration::parse(&told, &[])
                        .expect("the echo is metadata")
                        .metadata,
                    metadata
                );
                let again = register(told.to_vec()).await.expect(201).body;
                assert_eq!(
                    Registration::parse(&again, &[])
                        .expect("and so is its echo")
                        .metadata,
                    metadata
                );
            }
            Err(_) => {
                assert!(answer.status.is_client_error(), "{answer:#?}");
                assert_eq!(server.store.accesses(), before);
            }
        }
    })))
);
