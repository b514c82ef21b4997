//! Z03: a form says what was written, and says so when a parameter is there twice.
#![no_main]

use std::collections::BTreeMap;

use fuzz::judge;
use libfuzzer_sys::fuzz_target;
use protocol::oauth::form::Form;

/// The plain reading, byte by byte. `None`: not UTF-8.
fn decoded(text: &[u8]) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let escape = (*first == b'%')
            .then(|| std::str::from_utf8(after.get(..2)?).ok())
            .flatten()
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(match (*first, escape) {
            (_, Some(byte)) => byte,
            (b'+', _) => b' ',
            (byte, _) => byte,
        });
        rest = if escape.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\u{fffd}'))
}

fuzz_target!(|body: &[u8]| judge(|| {
    let Ok(form) = Form::parse(body) else {
        return;
    };
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in body.split(|byte| *byte == b'&') {
        let end = pair
            .iter()
            .position(|byte| *byte == b'=')
            .unwrap_or(pair.len());
        let value = pair.get(end + 1..).unwrap_or_default();
        if value.is_empty() {
            continue;
        }
        let name = decoded(&pair[..end]).expect("a form that is read is UTF-8");
        let value = decoded(value).expect("a form that is read is UTF-8");
        expected.entry(name).or_default().push(value);
    }
    let mut again = url::form_urlencoded::Serializer::new(String::new());
    for (name, values) in &expected {
        let read: Vec<&str> = form.all(name).collect();
        assert_eq!(read, *values);
        match form.one(name) {
            Ok(value) => assert_eq!(value, Some(&*values[0])),
            Err(_) => assert!(values.len() > 1),
        }
        for value in values {
            again.append_pair(name, value);
        }
    }
    let is_repeated = expected.values().any(|values| values.len() > 1);
    assert_eq!(
        form.repeated("").is_some(),
        is_repeated && {
            expected
                .iter()
                .any(|(name, values)| values.len() > 1 && !name.is_empty())
        }
    );
    let again = Form::parse(again.finish().as_bytes()).expect("what was read can be written");
    for (name, values) in &expected {
        assert!(again.all(name).eq(values.iter().map(String::as_str)));
    }
}));
