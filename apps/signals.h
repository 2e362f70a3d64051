#pragma once

namespace agon {

/// Asks of the outside world, noticed between steps: SIGTERM and SIGINT save and stop, SIGUSR1 saves. A second SIGINT
/// stops at once. SIGXFSZ is ignored, so that a file-size limit is an error of write(). From the first object to the
/// end of the last.
class Signals {
 public:
  Signals();   ///< installs the handlers
  ~Signals();  ///< puts the old ones back
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  static int stop();        ///< SIGINT or SIGTERM, or 0
  static bool take_save();  ///< whether SIGUSR1 came since the last call
};

}  // namespace agon
