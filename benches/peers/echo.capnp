@0xd0e3b5c1f0a94a17;

interface Echo {
  echo @0 (payload :Data) -> (payload :Data);
}
