"""python -m demo"""

import gc

if __name__ == "__main__":
    gc.disable()  # until the app is built, which creates no garbage worth the second that collecting takes
    from demo.app import main

    main()
