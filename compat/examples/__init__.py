"""Programs to copy from: TurboQueue between services. They need the extra ``tqshim[examples]``."""
