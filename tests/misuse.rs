//! What must not compile does not, and the compiler says why.

#[test]
fn wrong_types_are_refused_at_compile_time() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/misuse/right.rs");
    cases.compile_fail("tests/misuse/*_wrong.rs");
}
