"""`python -m tf_serving_standin`: the same as the console script `tensorflow_model_server`."""

from tf_serving_standin.cli import main

if __name__ == "__main__":
    main()
