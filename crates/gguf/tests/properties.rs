//! Round trips are exact, and damaged files are errors or other files, never panics.

use std::io::Cursor;
use std::path::Path;

use iiet_gguf::{
    Array, GgufError, GgufReader, Metadata, TensorInfo, TensorType, Value, write_gguf_to,
};
use proptest::collection::vec;
use proptest::prelude::*;

const PATH: &str = "test.gguf";

fn read(bytes: &[u8]) -> Result<GgufReader<Cursor<&[u8]>>, GgufError> {
    GgufReader::new(Cursor::new(bytes), Path::new(PATH))
}

/// NaN is not equal to itself, so only finite numbers.
fn array() -> impl Strategy<Value = Array> {
    let leaf = prop_oneof![
        vec(any::<u8>(), 0..5).prop_map(Array::U8),
        vec(any::<i8>(), 0..5).prop_map(Array::I8),
        vec(any::<u16>(), 0..5).prop_map(Array::U16),
        vec(any::<i16>(), 0..5).prop_map(Array::I16),
        vec(any::<u32>(), 0..5).prop_map(Array::U32),
        vec(any::<i32>(), 0..5).prop_map(Array::I32),
        vec(-1e30f32..1e30, 0..5).prop_map(Array::F32),
        vec(any::<bool>(), 0..5).prop_map(Array::Bool),
        vec(any::<String>(), 0..5).prop_map(Array::String),
        vec(any::<u64>(), 0..5).prop_map(Array::U64),
        vec(any::<i64>(), 0..5).prop_map(Array::I64),
        vec(-1e300f64..1e300, 0..5).prop_map(Array::F64),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| vec(inner, 0..3).prop_map(Array::Array))
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        (-1e30f32..1e30).prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        any::<String>().prop_map(Value::String),
        array().prop_map(Value::Array),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        (-1e300f64..1e300).prop_map(Value::F64),
    ]
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let pairs = vec((any::<String>(), value()), 0..8);
    let alignment = prop_oneof![Just(None), (3u32..8).prop_map(|n| Some(1 << n))];
    (pairs, alignment).prop_map(|(pairs, alignment)| {
        let mut metadata = Metadata::new();
        for (i, (key, value)) in pairs.into_iter().enumerate() {
            metadata.set(format!("{key}{i}"), value);
        }
        if let Some(alignment) = alignment {
            metadata.set("general.alignment", alignment);
        }
        metadata
    })
}

fn tensors() -> impl Strategy<Value = Vec<(TensorInfo, Vec<u8>)>> {
    let kind = (0..TensorType::ALL.len()).prop_map(|i| TensorType::ALL[i]);
    let tensor = (kind, vec(1u64..4, 1..4), any::<u8>());
    vec(tensor, 0..6).prop_map(|tensors| {
        let made = tensors.into_iter().enumerate();
        let made = made.map(|(i, (kind, mut shape, byte))| {
            *shape.last_mut().unwrap() *= kind.block();
            let info = TensorInfo::new(format!("tensor.{i}"), shape, kind).unwrap();
            let bytes = (0..info.bytes).map(|i| byte.wrapping_add(i as u8));
            let bytes = bytes.collect();
            (info, bytes)
        });
        made.collect()
    })
}

fn written(metadata: &Metadata, tensors: &[(TensorInfo, Vec<u8>)]) -> Vec<u8> {
    let infos: Vec<TensorInfo> = tensors.iter().map(|(info, _)| info.clone()).collect();
    let mut file = Vec::new();
    let bytes = |i: usize| Ok(tensors[i].1.clone());
    write_gguf_to(&mut file, Path::new(PATH), metadata, &infos, bytes).unwrap();
    file
}

/// Reads everything in a file that may be damaged.
fn read_all(bytes: &[u8]) {
    let Ok(mut file) = read(bytes) else { return };
    let names: Vec<String> = file.tensors().iter().map(|t| t.name.clone()).collect();
    for name in names {
        // The header was accepted, so every tensor is in the file.
        file.read(&name).unwrap();
        file.read_f32(&name).unwrap();
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(metadata in metadata(), tensors in tensors()) {
        let bytes = written(&metadata, &tensors);
        let mut file = read(&bytes).unwrap();
        prop_assert_eq!(file.version(), 3);
        prop_assert_eq!(file.metadata(), &metadata);
        prop_assert_eq!(file.tensors().len(), tensors.len());
        for (info, data) in &tensors {
            let found = file.tensor(&info.name).unwrap();
            prop_assert_eq!((&found.shape, found.kind, found.bytes), (&info.shape, info.kind, info.bytes));
            prop_assert_eq!(&file.read(&info.name).unwrap(), data);
        }
        // Version 2 has the same layout.
        let mut second = bytes.clone();
        second[4] = 2;
        let second = read(&second).unwrap();
        prop_assert_eq!((second.version(), second.metadata()), (2, &metadata));
    }

    #[test]
    fn damaged_files_do_not_panic(
        metadata in metadata(),
        tensors in tensors(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = written(&metadata, &tensors);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        read_all(&bytes);
    }

    #[test]
    fn files_that_are_cut_or_longer_are_errors(
        metadata in metadata(),
        tensors in tensors(),
        cut in any::<prop::sample::Index>(),
        more in 1usize..200,
    ) {
        let bytes = written(&metadata, &tensors);
        let cut = cut.index(bytes.len());
        let padding = bytes.len() as u64 - cut as u64;
        let whole = read(&bytes[..cut]);
        // The padding after the last tensor, or after the header, may be missing.
        prop_assert!(whole.is_err() || padding < metadata.alignment().unwrap(), "{}", padding);
        let longer = [bytes, vec![0; more]].concat();
        prop_assert!(read(&longer).is_err());
    }

    #[test]
    fn any_bytes_after_the_magic_do_not_panic(bytes in vec(any::<u8>(), 0..300)) {
        read_all(&[&b"GGUF\x03\0\0\0"[..], &bytes].concat());
    }
}

/// A header with these numbers of tensors and values.
fn header(version: u32, tensors: u64, values: u64, rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&tensors.to_le_bytes());
    bytes.extend_from_slice(&values.to_le_bytes());
    bytes.extend_from_slice(rest);
    bytes
}

fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text].concat()
}

fn error(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}

#[test]
fn other_versions_and_files_are_refused_by_name() {
    let refused = error(&header(1, 0, 0, &[]));
    assert_eq!(refused, "test.gguf: GGUF version 1; allowed: 2 and 3");
    let refused = error(&header(3u32.swap_bytes(), 0, 0, &[]));
    assert_eq!(
        refused,
        "test.gguf: big-endian GGUF (version 3); allowed: little-endian"
    );
    let refused = error(b"PK\x03\x04abcdef");
    assert_eq!(
        refused,
        "test.gguf: begins with \"PK\\\\x03\\\\x04\"; allowed: \"GGUF\""
    );
    assert!(error(b"GGU").contains("byte 0: 1 value of at least 4 bytes each; at most 3"));
}

#[test]
fn claimed_sizes_are_compared_with_the_file() {
    let (max, key) = (u64::MAX.to_le_bytes(), string(b"a"));
    let value =
        |kind: u32, rest: &[u8]| header(3, 0, 1, &[&key, &kind.to_le_bytes()[..], rest].concat());
    let array = |kind: u32, count: u64, rest: &[u8]| {
        value(
            9,
            &[&kind.to_le_bytes()[..], &count.to_le_bytes(), rest].concat(),
        )
    };
    let nested = [9u32.to_le_bytes().to_vec(), 1u64.to_le_bytes().to_vec()]
        .concat()
        .repeat(5);
    let cases: &[(Vec<u8>, &str)] = &[
        (
            header(3, u64::MAX, 0, &[]),
            "18446744073709551615 tensors; allowed: at most 65536",
        ),
        (
            header(3, 0, 65_537, &[]),
            "65537 values; allowed: at most 65536",
        ),
        (
            header(3, 9, 0, &[0; 99]),
            "9 tensors of at least 33 bytes each; at most 107",
        ),
        (
            header(3, 0, 1, &[&max[..], &[0; 20]].concat()),
            "a key of 18446744073709551615 bytes",
        ),
        (
            header(3, 0, 1, &[0; 20]),
            "a key of 0 bytes; allowed: 1 to 65535",
        ),
        (
            header(3, 0, 1, &[string(b"\xff\xfe"), vec![0; 9]].concat()),
            "not UTF-8 after its first 0",
        ),
        (value(13, &[0; 8]), "value type 13; allowed: 0 to 12"),
        (value(7, &[2]), "a bool of 2; allowed: 0 and 1"),
        (
            value(8, &max),
            "a string of 18446744073709551615 bytes; allowed: at most 100000000",
        ),
        (
            value(8, &99u64.to_le_bytes()),
            "99 bytes of at least 1 bytes each; at most 0",
        ),
        (
            array(10, u64::MAX / 4, &[]),
            "elements of at least 8 bytes each; at most 0",
        ),
        (
            array(8, 1 << 40, &[0; 16]),
            "1099511627776 strings of at least 8 bytes each; at most 16",
        ),
        (
            array(9, 1 << 40, &[]),
            "1099511627776 arrays of at least 12 bytes each",
        ),
        (
            value(9, &nested),
            "arrays nested 5 deep; allowed: at most 4",
        ),
        (array(77, 0, &[]), "value type 77"),
    ];
    for (bytes, expected) in cases {
        let refused = error(bytes);
        assert!(refused.contains(expected), "{refused}");
    }
    let twice = [&key, &0u32.to_le_bytes()[..], &[5]].concat().repeat(2);
    assert!(error(&header(3, 0, 2, &twice)).contains("key \"a\" for the second time"));
}

#[test]
fn tensors_outside_the_format_are_refused() {
    let tensor = |name: &[u8], sizes: &[u64], kind: u32, offset: u64| {
        let sizes: Vec<u8> = sizes.iter().flat_map(|n| n.to_le_bytes()).collect();
        let dims = (sizes.len() as u32 / 8).to_le_bytes();
        [
            &string(name),
            &dims[..],
            &sizes,
            &kind.to_le_bytes(),
            &offset.to_le_bytes(),
        ]
        .concat()
    };
    let one = |tensor: Vec<u8>| header(3, 1, 0, &[tensor, vec![0; 96]].concat());
    for (bytes, expected) in [
        (
            one(tensor(b"a", &[], 0, 0)),
            "\"a\" has 0 dimensions; allowed: 1 to 4",
        ),
        (one(tensor(b"a", &[1; 5], 0, 0)), "\"a\" has 5 dimensions"),
        (
            one(tensor(&[b'a'; 64], &[1], 0, 0)),
            "the name of a tensor of 64 bytes; allowed: at most 63",
        ),
        (
            one(tensor(b"a", &[1], 13, 0)),
            "\"a\" is of type Q5_K; allowed: F32, F16",
        ),
        (
            one(tensor(b"a", &[48], 8, 0)),
            "rows of 48 elements; allowed for Q8_0: multiples of 32",
        ),
        (
            one(tensor(b"a", &[1 << 40, 1 << 40], 0, 0)),
            "shape [1099511627776, 1099511627776]",
        ),
        (one(tensor(b"a", &[0], 0, 0)), "shape [0]"),
        (
            one(tensor(b"a", &[8], 0, 8)),
            "tensor a: begins at byte 8 of the data; allowed: multiples of 32",
        ),
        (
            one(tensor(b"a", &[1 << 30], 0, 0)),
            "tensor a: 4294967296 bytes from byte 0 of the data",
        ),
        (
            one(tensor(b"a", &[8], 0, u64::MAX - 31)),
            "leaves a gap after",
        ),
    ] {
        let refused = error(&bytes);
        assert!(refused.contains(expected), "{refused}");
    }
    let twice = tensor(b"a", &[8], 0, 0).repeat(2);
    let refused = error(&header(3, 2, 0, &[twice, vec![0; 96]].concat()));
    assert!(
        refused.contains("tensor \"a\" for the second time"),
        "{refused}"
    );
}
