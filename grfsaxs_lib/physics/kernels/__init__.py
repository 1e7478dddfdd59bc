"""What a device must provide.

A device is a module of this folder with the functions below; nothing else in the package touches a 3-D
array element by element. The functions take and return arrays of their own device (NumPy for ``cpu``),
small tables such as `amplitude` and `taps` aside, and import nothing of the package. No value is NaN. Results do not
depend on the number of threads. `out` is an array to use again: fresh memory of this size costs about as much time
as its Fourier transform.

``to_host(array)``
    -> NumPy array; on the CPU the array itself
``philox(counter, key)``
    Philox4x32-10: four 32-bit words from four and two. -> tuple of uint32
``gaussian_random_field(size, amplitude, seed, out=None)``
    Sum of the Fourier modes of a real periodic field. Mode (i, j, k) gets
    ``amplitude[i*i + j*j + k*k]`` times a standard complex normal number drawn
    with Philox4x32-10, key = seed, counter = (i, j, k); no mode beyond the end
    of `amplitude` is drawn. -> (size, size, size) float32
``order_statistics(values, ranks)``
    The rank-th smallest element (counted from 1) for each rank; ``-inf`` for
    rank 0. Exact. -> list of float
``binarise(values, threshold)``
    ``values > threshold``. -> uint8 array
``smooth(binary, taps, planes=None, out=None)``
    Periodic separable convolution with the symmetric kernel whose right half
    is `taps` (centre first), as a sum of non-negative terms in real space, in
    the precision of `taps`. `planes` selects indices along the first axis.
    -> array of the dtype of `taps`
``classify(values, lower, upper, out=None)``
    0 where ``values <= lower``, 1 where ``lower < values <= upper``, else 2; into `out` if it is given.
    -> uint8 array
``shell_sums(phases, densities, max_square)``
    Sum of :math:`|F|^2` over all modes of the full cube on each shell
    ``i*i + j*j + k*k <= max_square``, where F is the unnormalised forward DFT of
    ``densities[phases]`` less its mean. -> function without arguments that waits for the device and returns
    (max_square + 1,) float64 on the host
"""
